"""Documents inside a Dockerfile: ``<<NAME`` in an instruction, and the lines up to ``NAME``.

Quotes around the name, whole or in part, switch expansion off; ``<<-`` takes tabs off the start of
each line (Dockerfile reference, Here-Documents).
"""

import dataclasses
import re
from collections.abc import Sequence

from cloister.build.dockerfile import words
from cloister.build.dockerfile.place import Place


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Heredoc:
    """One document.

    Args:
        name: What ends it, and what it is called where it is copied into a folder.
        is_expanded: Variables in it are put in.
        is_chomped: Tabs at the start of a line do not belong to it.
        text: Its lines, line ends as they are.
        source: The same with the tabs that do not belong to it.
    """

    name: str
    is_expanded: bool
    is_chomped: bool
    text: str = ""
    source: str = ""

    def with_lines(self, lines: Sequence[str]) -> "Heredoc":
        """The document, now that its lines are known."""
        kept = (line.lstrip("\t") for line in lines) if self.is_chomped else lines
        return dataclasses.replace(self, text="".join(kept), source="".join(lines))


def announced(text: str, place: Place) -> list[Heredoc]:
    """The documents that an instruction announces, without their text.

    Args:
        text: What follows the instruction's name.
        place: For messages.

    Raises:
        MalformedImage: A quote in a name has no second one.
    """
    found = [one(word, place) for word in words.split(text, "\\")]
    return [head for head in found if head is not None]


def one(word: str, place: Place) -> Heredoc | None:
    """The document that a word announces; ``None``: it is another word.

    Raises:
        MalformedImage: A quote in the name has no second one.
    """
    match = _HEAD.fullmatch(word)
    if match is None or not match[2]:
        return None
    name = match[2]
    bare = words.unquoted(name, place)
    return Heredoc(
        name=bare,
        is_expanded=bare.count("'") + bare.count('"') == name.count("'") + name.count('"'),
        is_chomped=match[1] == "-",
    )


_HEAD = re.compile(r"[0-9]*<<(-?)([^<]*)")
