"""Lines that a program prints, made fit to be shown.

What a builder prints may come from anything that a Dockerfile runs: colors and cursor movements go,
other control characters are replaced, and no line is longer than :data:`MAX_CHARACTERS`.
"""

import re
from collections.abc import Iterator

MAX_CHARACTERS = 400
MAX_PENDING_BYTES = 1 << 16
"""A line without an end is cut here."""

# ECMA-48: CSI sequences, OSC strings, and two-character escapes.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")


class Lines:
    """Splits bytes into lines, as they come; a carriage return ends one too."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that these bytes complete."""
        *whole, self._pending = re.split(rb"[\r\n]+", self._pending + data)
        if len(self._pending) > MAX_PENDING_BYTES:
            whole.append(self._pending)
            self._pending = b""
        yield from (line for line in map(clean, whole) if line)

    def rest(self) -> Iterator[str]:
        """What is left at the end."""
        line = clean(self._pending)
        self._pending = b""
        if line:
            yield line


def clean(raw: bytes) -> str:
    """One line, as it may be shown."""
    text = _ESCAPES.sub("", raw[:MAX_PENDING_BYTES].decode("utf-8", "replace")).replace("\t", " ")
    text = "".join(char if char.isprintable() else "�" for char in text).rstrip()
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
