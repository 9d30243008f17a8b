"""Why the bytes of a file differ, where the bytes tell: where they start to, and the usual causes.

The causes that are known are those that make a rebuild differ though no source did: times in the
headers of compiled Python and of gzip.
"""

from itertools import zip_longest


def reason(one: memoryview, other: memoryview) -> str:
    """Why two contents that differ do: a cause, else where they start to differ."""
    if _is_but_for(one, other, PYC_SOURCE) and _is_timed_pyc(one) and _is_timed_pyc(other):
        return "only the time of its source, in the header of compiled Python: " + WITHOUT_TIME
    if _is_but_for(one, other, GZIP_TIME) and one[: len(GZIP)] == other[: len(GZIP)] == GZIP:
        return "only the time in its gzip header: gzip -n writes none"
    return _line(one, other) or f"from byte {_first_difference(one, other)}"


def _is_but_for(one: memoryview, other: memoryview, part: slice) -> bool:
    """Whether two contents are the same outside of a part of both."""
    return (
        min(len(one), len(other)) >= part.stop
        and one[: part.start] == other[: part.start]
        and one[part.stop :] == other[part.stop :]
    )


def _is_timed_pyc(data: memoryview) -> bool:
    return bytes(data[2:8]) == b"\r\n" + bytes(4)


def _line(one: memoryview, other: memoryview) -> str | None:
    """The first line of a text that differs."""
    if max(len(one), len(other)) > MAX_TEXT_BYTES:
        return None
    try:
        texts = [bytes(data).decode() for data in (one, other)]
    except UnicodeDecodeError:
        return None
    if any("\0" in text for text in texts):
        return None
    lines = [text.splitlines() for text in texts]
    for number, (before, after) in enumerate(zip_longest(*lines), start=1):
        if before != after:
            at = _first_difference(*(memoryview((text or "").encode()) for text in (before, after)))
            return f"line {number}: {_cut(before, at)} → {_cut(after, at)}"
    return "the ends of its lines"


def _cut(line: str | None, at: int) -> str:
    """What a line has around a place, for a message."""
    if line is None:
        return "(no such line)"
    start = max(0, at - LINE_BEFORE) if len(line) > LINE_CHARACTERS else 0
    part = line[start : start + LINE_CHARACTERS]
    shown = "".join(char if char.isprintable() else " " for char in part)
    front, end = "…" if start else "", "…" if start + len(part) < len(line) else ""
    return f"`{front}{shown}{end}`"


def _first_difference(one: memoryview, other: memoryview) -> int:
    shorter = min(len(one), len(other))
    at = 0
    while at < shorter and one[at : at + BLOCK_BYTES] == other[at : at + BLOCK_BYTES]:
        at += BLOCK_BYTES
    while at < shorter and one[at] == other[at]:
        at += 1
    return min(at, shorter)


PYC_SOURCE = slice(8, 16)
"""Time and size of the source, when the flags before them are zero (PEP 552)."""
WITHOUT_TIME = "PYTHONDONTWRITEBYTECODE=1, or pip install --no-compile"
GZIP = b"\x1f\x8b"
GZIP_TIME = slice(4, 8)
"""MTIME (RFC 1952, 2.3)."""
MAX_TEXT_BYTES = 1 << 20
LINE_CHARACTERS = 100
LINE_BEFORE = 30
BLOCK_BYTES = 1 << 16
