"""The upload to Hugging Face, as docs/sharing.md shows it, against a stand-in on this machine."""

from __future__ import annotations

import http.server
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from meddenoise_monai import __version__
from meddenoise_monai.exporting import BUNDLE_NAME, export_bundle
from tests.bundle.conftest import ROOT
from tests.bundle.stand_in_hub import Received, StandInHub


@pytest.mark.e2e
def test_upload_sends_the_export_and_a_model_card(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "sharing.md").read_text(encoding="utf-8")
    (lines,) = (code for code in re.findall(r"```python\n(.*?)```", document, re.S) if "push_to_hf_hub" in code)
    summary = export_bundle(tmp_path / "zoo")
    received = Received()
    handler = type("Handler", (StandInHub,), {"received": received})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        environment = {
            **os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_TOKEN": "hf_not_a_real_token",
            "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1", "no_proxy": "127.0.0.1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        try:
            result = subprocess.run(
                [sys.executable, "-c", lines],
                cwd=tmp_path,
                env=environment,
                text=True,
                capture_output=True,
                timeout=120,
            )
        finally:
            hub.shutdown()
            thread.join()
    assert result.returncode == 0, result.stderr
    assert received.unknown == []
    assert received.tokens == {"Bearer hf_not_a_real_token"}
    (repository,) = received.repositories
    assert (repository["name"], repository["organization"]) == (BUNDLE_NAME, "ACCOUNT")
    assert repository.get("visibility") == "private" or repository.get("private") is True  # by huggingface_hub's age
    assert received.tags == [__version__]
    card = received.files.pop("README.md").decode()
    assert card.startswith("---\n")
    assert "license: apache-2.0" in card
    assert "library_name: monai" in card
    assert set(received.files) == set(summary.files)
    assert all(received.files[name] == (summary.folder / name).read_bytes() for name in summary.files)
