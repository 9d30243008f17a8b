"""Patterns of ``${name#pattern}`` and its kin: ``*`` any text, ``?`` any character.

Matched by a machine whose states are the bits of one number, in time that grows with the text and
not with what could be tried: patterns and texts both come from a Dockerfile.
"""

from collections.abc import Iterator
from typing import Self


class ShellPattern:
    """A pattern.

    Args:
        text: The pattern: ``*`` and ``?``, and characters that stand for themselves.
    """

    def __init__(self, text: str) -> None:
        # Bit i of a state: i of the characters of the pattern were matched. A star lets the
        # machine stay where it is.
        self._text = text
        self._stays = 0
        self._any = 0
        self._advances: dict[str, int] = {}
        self._length = 0
        for char in text:
            bit = 1 << self._length
            if char == "*":
                self._stays |= bit
                continue
            self._length += 1
            if char == "?":
                self._any |= bit
            else:
                self._advances[char] = self._advances.get(char, 0) | bit

    def ends(self, text: str, start: int = 0) -> Iterator[int]:
        """Where a match that begins at ``start`` may end, ascending."""
        state, final = 1, 1 << self._length
        if state & final:
            yield start
        for at in range(start, len(text)):
            moved = state & (self._advances.get(text[at], 0) | self._any)
            state = (state & self._stays) | (moved << 1)
            if not state:
                return
            if state & final:
                yield at + 1

    def replaced(self, text: str, by: str, *, everywhere: bool) -> str:
        """A text whose first match, or each, is replaced; each as long as can be."""
        starts = self._starts(text)
        result, at = "", 0
        for start in starts:
            if start < at:
                continue
            end = max(self.ends(text, start))
            result += text[at:start] + by
            if end == start:
                result += text[start : start + 1]
                end += 1
            at = end
            if not everywhere:
                break
        return result + text[at:]

    def _starts(self, text: str) -> list[int]:
        """Where some match begins, ascending: the ends of the reversed pattern, found anywhere."""
        backwards = self.reversed()
        state, final = 1, 1 << backwards._length  # noqa: SLF001 - of its own kind
        found = [len(text)] if state & final else []
        for at in range(len(text) - 1, -1, -1):
            moved = state & (backwards._advances.get(text[at], 0) | backwards._any)  # noqa: SLF001
            state = 1 | (state & backwards._stays) | (moved << 1)  # noqa: SLF001
            if state & final:
                found.append(at)
        return found[::-1]

    def reversed(self) -> Self:
        """The pattern for texts that are read from their end."""
        return type(self)(self._text[::-1])
