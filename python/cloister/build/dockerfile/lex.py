"""A Dockerfile as logical lines: comments dropped, continuations joined, documents attached.

The rules are those of BuildKit's parser (``frontend/dockerfile/parser``): directives stand before
anything else, comment lines and empty lines vanish also inside a continued instruction, and the
lines of a heredoc belong to the instruction that announces it, also where nothing runs it.
"""

import dataclasses
import re

from cloister.build.dockerfile.directives import Directives, read_directives
from cloister.build.dockerfile.heredoc import Heredoc, announced
from cloister.build.dockerfile.place import Place


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One instruction.

    Args:
        place: The line it starts on.
        name: The instruction, upper case.
        rest: What follows it, one line.
        heredocs: Documents that it announces, in order.
        has_gap: An empty line is inside of it, which BuildKit warns of.
    """

    place: Place
    name: str
    rest: str
    heredocs: tuple[Heredoc, ...] = ()
    has_gap: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lexed:
    """A whole Dockerfile.

    Args:
        directives: What its first lines set.
        lines: Its instructions, in order.
    """

    directives: Directives
    lines: tuple[Line, ...]


def lex(text: str, file: str) -> Lexed:
    """Reads the text of a Dockerfile.

    Args:
        text: The text.
        file: Its name, for messages.

    Raises:
        MalformedImage: A zero byte, which no path and no variable can hold; a wrong or repeated
            directive, a heredoc without its end, or a line that is no instruction.
    """
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise Place(file, line).error("a zero byte, expected text")
    source = _lines(text)
    directives, start = read_directives(source, file)
    return Lexed(directives=directives, lines=tuple(_Lexer(source, file, directives.escape, start)))


def lex_one(text: str, place: Place, escape: str) -> Line:
    """An instruction inside another, which ONBUILD holds; its documents are in the text.

    Raises:
        MalformedImage: It is none, or more than one.
    """
    found = list(_Lexer(_lines(text), place.file, escape, 0))
    if len(found) != 1:
        raise place.error(f"expected one instruction, found {text[:60]!r}")
    return dataclasses.replace(found[0], place=place)


class _Lexer:
    def __init__(self, source: list[str], file: str, escape: str, start: int) -> None:
        self._source = source
        self._file = file
        self._at = start
        mark = re.escape(escape)
        # An escaped escape character at the end of a line is not a continuation.
        self._continued = re.compile(rf"(?:^|(?<=[^{mark}])){mark}[ \t]*$")

    def __iter__(self) -> "_Lexer":
        return self

    def __next__(self) -> Line:
        while self._at < len(self._source):
            first = self._at
            text, has_gap = self._joined()
            if text:
                return self._line(text, Place(self._file, first + 1), has_gap=has_gap)
        raise StopIteration

    def _joined(self) -> tuple[str, bool]:
        """The next logical line, without space around it; empty: a comment or nothing."""
        parts: list[str] = []
        has_gap = False
        while self._at < len(self._source):
            raw = self._source[self._at].rstrip("\r\n")
            self._at += 1
            stripped = raw.lstrip()
            if stripped.startswith("#") or not stripped:
                if not parts:
                    break
                has_gap = has_gap or not stripped
                continue
            found = self._continued.search(raw)
            parts.append(raw[: found.start()] if found else raw)
            if not found:
                break
        return "".join(parts).strip(), has_gap

    def _line(self, text: str, place: Place, *, has_gap: bool) -> Line:
        found = _INSTRUCTION.fullmatch(text)
        if found is None:
            raise place.error(f"expected an instruction, found {text.split(maxsplit=1)[0][:40]!r}")
        name, rest = found[1].upper(), found[2] or ""
        takes = name in _HEREDOC_TAKERS or (
            name == "ONBUILD" and rest.partition(" ")[0].upper() in _HEREDOC_TAKERS
        )
        documents: list[Heredoc] = []
        # The exec form has no heredocs: its texts are taken as they are.
        if takes and "<<" in rest and not _EXEC.match(rest):
            documents = [self._document(head, place) for head in announced(rest, place)]
        return Line(place=place, name=name, rest=rest, heredocs=tuple(documents), has_gap=has_gap)

    def _document(self, head: Heredoc, place: Place) -> Heredoc:
        lines: list[str] = []
        while self._at < len(self._source):
            raw = self._source[self._at]
            self._at += 1
            end = raw.rstrip("\r\n")
            if (end.lstrip("\t") if head.is_chomped else end) == head.name:
                return head.with_lines(lines)
            lines.append(raw)
        raise place.error(f"the heredoc {head.name[:40]!r} has no end")


def _lines(text: str) -> list[str]:
    """Lines with their ends; only a line feed ends one."""
    parts = text.removeprefix("\ufeff").split("\n")
    last = parts.pop()
    return [part + "\n" for part in parts] + ([last] if last else [])


_INSTRUCTION = re.compile(r"([A-Za-z]+)(?:[ \t\v\f\r]+(.*))?", re.DOTALL)
_EXEC = re.compile(r"(?:--\S+\s+)*\[")
_HEREDOC_TAKERS = {"ADD", "COPY", "RUN"}
