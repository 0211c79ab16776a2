"""A server on this machine that answers an upload as Hugging Face's hub does, and remembers what it was sent."""

from __future__ import annotations

import base64
import http.server
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Received:
    """What the uploads of one repository came to."""

    repositories: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    objects: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


class StandInHub(http.server.BaseHTTPRequestHandler):
    """Speaks what `HfApi.create_repo`, `upload_folder` and `create_tag` ask for; anything else is a 404."""

    received: Received
    protocol_version = "HTTP/1.1"

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _answer(self, content: object, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @property
    def _address(self) -> str:
        return f"http://{self.headers['Host']}"

    def do_PUT(self) -> None:
        self.received.objects[self.path.rpartition("/")[2]] = self._body()
        self._answer({})

    def do_GET(self) -> None:
        self._refuse()

    def do_POST(self) -> None:
        body = self._body()
        self.received.tokens.add(self.headers.get("Authorization", ""))
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            self.received.repositories.append(json.loads(body))
            self._answer({"url": f"{self._address}/someone/{json.loads(body)['name']}"})
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif path.endswith("/preupload/main"):
            kinds = [
                {"path": file["path"], "uploadMode": _mode(file["path"]), "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            self._answer({"files": kinds, "commitOid": "0" * 40})
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**item, "actions": {"upload": {"href": f"{self._address}/objects/{item['oid']}", "header": {}}}}
                for item in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        elif path.endswith("/commit/main"):
            self._commit(body)
        elif path.endswith("/tag/main"):
            self.received.tags.append(json.loads(body)["tag"])
            self._answer({})
        else:
            self._refuse()

    def _commit(self, body: bytes) -> None:
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                assert value["encoding"] == "base64"
                self.received.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.received.files[value["path"]] = self.received.objects[value["oid"]]
        where = f"{self._address}/someone/name/commit/{'1' * 40}"
        self._answer({"success": True, "commitOid": "1" * 40, "commitUrl": where})

    def _refuse(self) -> None:
        self.received.unknown.append(f"{self.command} {self.path}")
        self._answer({"error": "not found"}, 404)

    def log_message(self, *args: object) -> None:
        pass


def _mode(path: str) -> str:
    return "lfs" if path.endswith((".pt", ".png", ".onnx")) else "regular"
