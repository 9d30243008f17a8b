"""Where each key of a TOML text stands: line and column, both from 1.

The text has been read by :mod:`tomllib` before, so this scanner only walks: it knows where keys,
strings, lists and inline tables begin and end and judges nothing.
"""

import re

Path = tuple[str, ...]
"""Keys from the top; an item of a list is its index as text."""


def positions(text: str) -> dict[Path, tuple[int, int]]:
    """Line and column of every key and list item of a valid TOML text."""
    return _Scanner(text).document()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found: dict[Path, tuple[int, int]] = {}
        self._tables: dict[Path, int] = {}

    def document(self) -> dict[Path, tuple[int, int]]:
        table: Path = ()
        while self._skip(_BLANK):
            if self._text.startswith("[[", self._at):
                start = self._at
                self._at += 2
                name = self._key()
                count = self._tables.get(name, 0)
                self._tables[name] = count + 1
                table = (*name, str(count))
                self._note(table, start)
                self._at = self._line_end()
            elif self._text[self._at] == "[":
                start = self._at
                self._at += 1
                table = self._key()
                self._note(table, start)
                self._at = self._line_end()
            else:
                self._pair(table)
        return self._found

    def _pair(self, table: Path) -> None:
        start = self._at
        path = (*table, *self._key())
        self._note(path, start)
        self._skip(_SPACE)
        self._at += 1
        self._value(path)

    def _value(self, path: Path) -> None:
        self._skip(_BLANK)
        opening = self._text[self._at : self._at + 1]
        if opening in ("[", "{"):
            self._at += 1
            closing = "]" if opening == "[" else "}"
            index = 0
            while self._skip(_BLANK_OR_COMMA) and self._text[self._at] != closing:
                if opening == "[":
                    item = (*path, str(index))
                    self._note(item, self._at)
                    self._value(item)
                    index += 1
                else:
                    self._pair(path)
            self._at += 1
        elif not self._skip_match(_STRING):
            self._skip_match(_SCALAR)

    def _key(self) -> Path:
        parts = []
        while True:
            self._skip(_SPACE)
            found = _KEY_PART.match(self._text, self._at)
            if found is None:
                break
            self._at = found.end()
            part = found.group()
            parts.append(_unquoted(part))
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                break
            self._at += 1
        return tuple(parts)

    def _note(self, path: Path, at: int) -> None:
        line = self._text.count("\n", 0, at) + 1
        column = at - (self._text.rfind("\n", 0, at) + 1) + 1
        for length in range(1, len(path) + 1):
            self._found.setdefault(path[:length], (line, column))

    def _line_end(self) -> int:
        end = self._text.find("\n", self._at)
        return len(self._text) if end < 0 else end

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        """Passes over what may be between two things; whether anything is left."""
        self._skip_match(pattern)
        return self._at < len(self._text)

    def _skip_match(self, pattern: re.Pattern[str]) -> bool:
        found = pattern.match(self._text, self._at)
        if found is None:
            return False
        self._at = found.end()
        return True


def _unquoted(part: str) -> str:
    if part.startswith("'"):
        return part[1:-1]
    if part.startswith('"'):
        import tomllib  # noqa: PLC0415 - for the rare key with escapes

        return str(tomllib.loads(f"key = {part}")["key"])
    return part


_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK_OR_COMMA = re.compile(r"(?:[ \t\r\n,]|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|'
    r"'''.*?'{3,5}|"
    r'"(?:\\.|[^"\\\n])*"|'
    r"'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]+")
_KEY_PART = re.compile(r'[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'')
