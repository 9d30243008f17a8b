"""A Dockerfile as logical lines: comments dropped, continuations joined, directives applied.

Rules of BuildKit's parser: directives stand before anything else, comment lines vanish also inside
a continued instruction, and so do empty lines there.
"""

import dataclasses
import re

from cloister.build.dockerfile.place import ONLY_NATIVE, Place


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One instruction.

    Args:
        place: The line it starts on.
        name: The instruction, upper case.
        rest: What follows it, one line.
    """

    place: Place
    name: str
    rest: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lexed:
    """A whole Dockerfile.

    Args:
        escape: The escape character, a backslash or a backtick.
        lines: Its instructions, in order.
    """

    escape: str
    lines: tuple[Line, ...]


def lex(text: str, file: str) -> Lexed:
    """Reads the text of a Dockerfile.

    Args:
        text: The text.
        file: Its name, for messages.

    Raises:
        MalformedImage: An unknown or repeated directive value, a heredoc, or a line that is no
            instruction.
    """
    source = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    escape, start = _directives(source, file)
    continued = re.compile(re.escape(escape) + r"[ \t]*$")
    lines: list[Line] = []
    parts: list[str] = []
    first = start
    for number, raw in enumerate(source[start:], start=start + 1):
        if raw.lstrip().startswith("#"):
            continue
        if not raw.strip():
            continue
        if not parts:
            first = number
        found = continued.search(raw)
        parts.append(raw[: found.start()] if found else raw)
        if not found:
            lines.append(_line("".join(parts).strip(), Place(file, first)))
            parts = []
    if "".join(parts).strip():
        lines.append(_line("".join(parts).strip(), Place(file, first)))
    return Lexed(escape=escape, lines=tuple(lines))


def _directives(source: list[str], file: str) -> tuple[str, int]:
    escape = "\\"
    seen: set[str] = set()
    for index, raw in enumerate(source):
        found = _DIRECTIVE.fullmatch(raw)
        if found is None or found[1].lower() not in _KNOWN:
            return escape, index
        name, value = found[1].lower(), found[2].strip()
        place = Place(file, index + 1)
        if name in seen:
            raise place.error(f"the directive `{name}` is there twice")
        seen.add(name)
        if name == "escape":
            if value not in ("\\", "`"):
                raise place.error(f"`escape` is {value!r}, expected a backslash or a backtick")
            escape = value
    return escape, len(source)


def _line(text: str, place: Place) -> Line:
    name, _, rest = text.replace("\t", " ", 1).partition(" ")
    if not re.fullmatch(r"[A-Za-z]+", name):
        raise place.error(f"expected an instruction, found {name[:40]!r}")
    rest = rest.strip()
    if name.upper() in _HEREDOC_TAKERS and re.search(r"(?:^|\s)\d*<<-?\s*['\"]?\w", rest):
        raise place.error(f"{name.upper()} with a heredoc is not read yet", hint=ONLY_NATIVE)
    return Line(place=place, name=name.upper(), rest=rest)


_DIRECTIVE = re.compile(r"\s*#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*")
_KNOWN = {"syntax", "escape", "check"}
_HEREDOC_TAKERS = {"COPY", "ADD", "RUN"}
