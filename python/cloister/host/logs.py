"""Reads the log segments that the agent server writes.

A segment is NDJSON: a first line that says which enclave and boot, then one transaction a line, as
the enclave sent it. What a record says is the enclave's word, and part of it (paths, header values,
user agents) its clients': whoever shows it prints it escaped. The writer is Rust; this only reads,
and may read while it writes.
"""

import json
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

POLL_S = 0.2
_SUFFIX = ".ndjson"


def records(log_dir: pathlib.Path, *, ctx: str | None = None) -> Iterator[dict[str, Any]]:
    """Every record that is there, oldest first.

    Args:
        log_dir: Folder of the segments of one enclave; one that is absent has none.
        ctx: Only the request with this context id (``x-evervault-ctx``), in any letter case.
    """
    yield from _Reader(log_dir, ctx).new()


def follow(
    log_dir: pathlib.Path,
    stop: threading.Event,
    *,
    ctx: str | None = None,
    from_start: bool = False,
) -> Iterator[dict[str, Any]]:
    """Records as they come, until ``stop`` is set; what is there by then is still given.

    Args:
        log_dir: Folder of the segments of one enclave.
        stop: Ends it.
        ctx: Only the request with this context id.
        from_start: Begin with what is there already.
    """
    reader = _Reader(log_dir, ctx)
    if not from_start:
        for _ in reader.new():
            pass
    while not stop.is_set():
        yield from reader.new()
        stop.wait(POLL_S)
    yield from reader.new()


class _Reader:
    """Remembers how far each segment was read, in whole lines."""

    def __init__(self, log_dir: pathlib.Path, ctx: str | None) -> None:
        self._log_dir = log_dir
        self._ctx = ctx.upper() if ctx else None
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
                if record is not None and self._ctx in {None, record.get("txid")}:
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
