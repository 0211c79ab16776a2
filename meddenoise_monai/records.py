"""The record of an archive: a folder of Parquet files beside the results, which any reader of Parquet can query."""

from __future__ import annotations

import dataclasses
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import InputError, UsageError
from .trees import Tree

__all__ = ["RECORDS", "Record", "Records", "spelt"]

RECORDS = "manifest.parquet"
_EACH, _SECONDS = 1000, 30.0  # a part is written when it holds so many records, or is so old
_MERGED = 200_000  # records in a part, once a job is through


@dataclasses.dataclass(frozen=True, slots=True)  # there are millions of them
class Record:
    """What became of a file.

    Parameters
    ----------
    source, target
        Relative to the job's folders; names of files may name patients. No target where there is no result.
    status
        ``done``, ``failed``, ``unsuitable`` (whole, but nothing to be denoised) or ``ignored`` (no image at all).
    reason
        Why, if it is not done.
    job
        A digest of all that results depend on besides their sources.
    source_version
        As in `trees.Entry`: by it a file that was changed is known without being read.
    source_sha256, target_sha256, target_size
        Of the bytes.
    seconds
        That the network took.
    warnings
        One a line.
    estimated_sigma, removed_sigma
        Of the noise that was found, and of what was removed; in the image's own units.
    at
        Seconds since 1970. Of several records of one source the latest holds.
    """

    source: str
    target: str
    status: str
    reason: str
    job: str
    source_version: str
    source_sha256: str = ""
    target_sha256: str = ""
    target_size: int = 0
    seconds: float = 0.0
    warnings: str = ""
    estimated_sigma: float | None = None
    removed_sigma: float | None = None
    at: float = 0.0


class Records:
    """The records below a tree, to be read, and to be added to by one process.

    Parameters
    ----------
    tree
        Where the results go.

    Raises
    ------
    UsageError
        If what reads Parquet is not installed.
    """

    def __init__(self, tree: Tree) -> None:
        try:
            import pyarrow  # noqa: F401  # before the work, not after it
        except ImportError as error:
            raise UsageError(
                "the record of an archive needs pyarrow", "install the extra: pip install 'meddenoise-monai[archive]'"
            ) from error
        self.tree = Tree(f"{tree.place.rstrip('/')}/{RECORDS}")
        self._waiting: list[Record] = []
        self._since = time.monotonic()

    def parts(self) -> list[str]:
        """The names of the parts that are there."""
        return sorted(name for name, _ in self.tree.entries() if name.endswith(".parquet"))

    def latest(self) -> dict[str, Record]:
        """The latest record of each source.

        Raises
        ------
        InputError
            If a part is none that was written here.
        """
        found: dict[str, Record] = {}
        for record in self._all(self.parts()):
            if record.source not in found or record.at >= found[record.source].at:
                found[record.source] = record
        return found

    def _all(self, parts: list[str]) -> Iterator[Record]:
        import pyarrow
        from pyarrow import parquet

        for part in parts:
            try:
                table = parquet.read_table(pyarrow.BufferReader(self.tree.read(part)))
                _check(table, _schema())
            except (pyarrow.ArrowException, ValueError) as error:
                reason = " ".join(str(error).split())[:200]
                raise InputError(f"{self.tree.place}/{part} is none that was written here: {reason}",
                                 "move that file away, or choose another target") from error  # fmt: skip
            for rows in table.to_batches():
                yield from (Record(**row) for row in rows.to_pylist())

    def add(self, record: Record) -> None:
        """Take a record; it is down when `flush` says so, at the latest with the next one after half a minute."""
        self._waiting.append(dataclasses.replace(record, at=time.time()))
        if len(self._waiting) >= _EACH or time.monotonic() - self._since > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits as a part, which appears whole."""
        if self._waiting:
            self._write(self._waiting)
            self._waiting = []
        self._since = time.monotonic()

    def merge(self) -> None:
        """Of many parts make few, with one record for each source. Killed in the middle, it leaves some records twice,
        which `latest` does not mind and the next merge mends."""
        self.flush()
        parts = self.parts()
        records = self.latest()
        if len(parts) < 2:
            return
        rows = [records[name] for name in sorted(records)]
        for start in range(0, len(rows), _MERGED):
            self._write(rows[start : start + _MERGED])
        for part in parts:
            self.tree.remove(part)

    def _write(self, records: list[Record]) -> None:
        import pyarrow
        from pyarrow import parquet

        table = pyarrow.Table.from_pylist([_row(record) for record in records], schema=_schema())
        with tempfile.TemporaryDirectory(prefix="meddenoise-") as scratch:
            part = Path(scratch, "part.parquet")
            parquet.write_table(table, part, compression="zstd")
            self.tree.put(part, f"part-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.parquet")


def spelt(name: str) -> str:
    """A name as records have it: where it is no Unicode, which file systems allow and Parquet does not, with its bytes
    spelt out."""
    return name.encode("utf-8", "backslashreplace").decode()


def _row(record: Record) -> dict[str, Any]:
    row = dataclasses.asdict(record)
    return {key: spelt(value) if isinstance(value, str) else value for key, value in row.items()}


def _schema() -> Any:
    import pyarrow

    kinds: dict[str, Any] = {
        "int": pyarrow.int64(), "float": pyarrow.float64(), "float | None": pyarrow.float64(), "str": pyarrow.string(),
    }  # fmt: skip
    return pyarrow.schema(
        [
            pyarrow.field(field.name, kinds[str(field.type)], nullable="None" in str(field.type))
            for field in dataclasses.fields(Record)
        ]
    )


def _check(table: Any, schema: Any) -> None:
    if set(table.column_names) != set(schema.names):
        raise ValueError(f"its columns are {', '.join(table.column_names)}")
    for field in schema:
        column = table.column(field.name)
        if column.type != field.type or (column.null_count and not field.nullable):
            raise ValueError(f"the values of {field.name} are none of the kind")
