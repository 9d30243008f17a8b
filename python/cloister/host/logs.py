"""Reads the log segments that the agent server writes.

A folder has the segments of one boot, or folders of boots, as a host with takeovers keeps them.
A segment is NDJSON: a first line that says which enclave and boot, then one transaction a line, as
the enclave sent it. What a record says is the enclave's word, and part of it (paths, header values,
user agents) its clients': whoever shows it prints it escaped. The writer is Rust; this only reads,
and may read while it writes.
"""

import dataclasses
import json
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

POLL_S = 0.2
_SUFFIX = ".ndjson"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which records are given; whatever is ``None`` or empty excludes nothing.

    Args:
        ctx: The request with this context id, as ``x-evervault-ctx`` of its answer says it, in any
            letter case.
        since_ms: Begun then or later, milliseconds since the Unix epoch.
        until_ms: Begun before then.
        statuses: Status codes (``404``) and groups of them (``4xx``), one of which must fit.
    """

    ctx: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    statuses: frozenset[str] = frozenset()

    def takes(self, record: dict[str, Any]) -> bool:
        """Whether a record is one of them."""
        if self.ctx is not None and record.get("txid") != self.ctx.upper():
            return False
        begun = record.get("ts")
        if not isinstance(begun, int):
            begun = 0
        if self.since_ms is not None and begun < self.since_ms:
            return False
        if self.until_ms is not None and begun >= self.until_ms:
            return False
        if not self.statuses:
            return True
        group = str(record.get("statusGroup", "")).lower()
        return not self.statuses.isdisjoint({str(record.get("responseCode")), group})


EVERYTHING = Wanted()


def records(log_dir: pathlib.Path, wanted: Wanted = EVERYTHING) -> Iterator[dict[str, Any]]:
    """Every record that is there, oldest first within a boot, and boots in their order.

    Args:
        log_dir: Folder of the segments of one enclave; one that is absent has none.
        wanted: Which of them.
    """
    yield from _Boots(log_dir, wanted).new()


def follow(
    log_dir: pathlib.Path,
    stop: threading.Event,
    wanted: Wanted = EVERYTHING,
    *,
    from_start: bool = False,
) -> Iterator[dict[str, Any]]:
    """Records as they come, until ``stop`` is set; what is there by then is still given.

    Args:
        log_dir: Folder of the segments of one enclave.
        stop: Ends it.
        wanted: Which of them.
        from_start: Begin with what is there already.
    """
    reader = _Boots(log_dir, wanted)
    if not from_start:
        for _ in reader.new():
            pass
    while not stop.is_set():
        yield from reader.new()
        stop.wait(POLL_S)
    yield from reader.new()


class _Boots:
    """The folder itself, and the folders of boots in it, as they come."""

    def __init__(self, log_dir: pathlib.Path, wanted: Wanted) -> None:
        self._log_dir = log_dir
        self._wanted = wanted
        self._readers: dict[pathlib.Path, _Reader] = {}

    def new(self) -> Iterator[dict[str, Any]]:
        for folder in (self._log_dir, *sorted(self._log_dir.glob("*/"))):
            reader = self._readers.setdefault(folder, _Reader(folder, self._wanted))
            yield from reader.new()


class _Reader:
    """Remembers how far each segment was read, in whole lines."""

    def __init__(self, log_dir: pathlib.Path, wanted: Wanted) -> None:
        self._log_dir = log_dir
        self._wanted = wanted
        self._number = 0
        self._offset = 0

    def new(self) -> Iterator[dict[str, Any]]:
        for number, path in _segments(self._log_dir):
            if number < self._number:
                continue
            if number > self._number:
                self._number, self._offset = number, 0
            yield from self._read(path)

    def _read(self, path: pathlib.Path) -> Iterator[dict[str, Any]]:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return  # removed as the oldest meanwhile
        with file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # being written
                is_first = self._offset == 0
                self._offset += len(line)
                if is_first:
                    continue
                record = _parse(line)
                if record is not None and self._wanted.takes(record):
                    yield record


def _segments(log_dir: pathlib.Path) -> list[tuple[int, pathlib.Path]]:
    found = [
        (int(path.stem), path)
        for path in log_dir.glob(f"*{_SUFFIX}")
        if path.stem.isascii() and path.stem.isdigit()
    ]
    return sorted(found)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
