"""Tracking URIs: which store is meant, whether it answers, and how to name it without a password."""

from __future__ import annotations

import os
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from ..errors import UsageError

__all__ = ["PROBE_SECONDS", "artifact_location", "check_reachable", "public", "resolve_uri", "sqlite_path"]

PROBE_SECONDS = 5.0
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def resolve_uri(argument: str | None, folder: Path) -> str:
    """The tracking URI to use, an SQLite path made absolute; UsageError for a folder, which MLflow 3 refuses.

    Parameters
    ----------
    argument
        What the user gave; the environment variable ``MLFLOW_TRACKING_URI`` beats it.
    folder
        Holds the SQLite file when neither is set.
    """
    environment = os.environ.get("MLFLOW_TRACKING_URI")
    uri = environment or argument
    if not uri:
        return f"sqlite:///{(folder / 'mlflow.db').as_posix()}"
    if uri in ("databricks", "databricks-uc", "uc"):
        return uri
    scheme = urlsplit(uri).scheme
    # A single letter is a Windows drive.
    if (len(scheme) < 2 or scheme == "file") and os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() != "true":
        origin = "MLFLOW_TRACKING_URI" if environment else "tracking_uri"
        path = urlsplit(uri).path if scheme == "file" else uri
        raise UsageError(
            f"{origin} is a folder, {uri!r}: MLflow 3 keeps runs in a database or on a server",
            f"use sqlite:///{path.rstrip('/')}/mlflow.db, or the address of a server (http://…)",
        )
    database = sqlite_path(uri)
    return uri if database is None else f"sqlite:///{database.as_posix()}" + "".join(uri.partition("?")[1:])


def sqlite_path(uri: str) -> Path | None:
    """The absolute path of the SQLite file that a URI names, None for any other URI."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]).absolute()


def artifact_location(uri: str, folder: Path) -> str | None:
    """Where a new experiment keeps its files: beside an SQLite file, else in `folder`; None leaves it to a server."""
    database = sqlite_path(uri)
    if database is not None:
        return (database.parent / "mlruns").as_uri()
    return (folder / "mlruns").as_uri() if _database(uri) else None


def check_reachable(uri: str) -> None:
    """Raise OSError, within seconds, if a server does not answer; MLflow would try for minutes."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        try:
            urllib.request.urlopen(f"{public(uri).rstrip('/')}/health", timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError as error:
            error.close()
            # Any other answer, a demand for a password among them, is the answer of a living server.
            if error.code in (502, 503, 504):
                raise ConnectionError(f"HTTP status {error.code}") from None
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ssl.SSLError):  # MLflow has settings of its own for certificates
                raise
    elif _database(uri) and parts.hostname:
        port = parts.port or _DATABASE_PORTS[_database(uri)]
        socket.create_connection((parts.hostname, port), timeout=PROBE_SECONDS).close()


def public(uri: str) -> str:
    """The URI without the user name, password and query that it may carry."""
    parts = urlsplit(uri)
    if not parts.netloc:
        return uri
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _database(uri: str) -> str:
    """The kind of a database server, empty for any other URI."""
    kind = urlsplit(uri).scheme.partition("+")[0]
    return kind if kind in _DATABASE_PORTS else ""
