"""Words of an instruction: quotes, escapes and variables, as BuildKit's shell lexer reads them."""

import json
import re
from collections.abc import Mapping

from cloister.build.dockerfile.place import Place


def json_list(text: str) -> list[str] | None:
    """The exec form, a JSON list of texts; ``None``: it is something else."""
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    return None


def split(text: str, escape: str) -> list[str]:
    """Words between white space, quotes and escapes kept as they are."""
    words: list[str] = []
    word = ""
    quote = ""
    at = 0
    while at < len(text):
        char = text[at]
        if char == escape and quote != "'" and at + 1 < len(text):
            word += text[at : at + 2]
            at += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char.isspace():
            if word:
                words.append(word)
            word = ""
            at += 1
            continue
        word += char
        at += 1
    return [*words, word] if word else words


def expand(text: str, values: Mapping[str, str], escape: str, place: Place) -> str:
    """A word with its variables put in and its quotes taken off.

    Args:
        text: The word.
        values: Variables by name; one that is not there is empty.
        escape: The escape character.
        place: For messages.

    Raises:
        MalformedImage: A quote or brace without its end, or a form of substitution that is not
            known.
    """
    return _Expander(text, values, escape, place).word("")


class _Expander:
    def __init__(self, text: str, values: Mapping[str, str], escape: str, place: Place) -> None:
        self._text = text
        self._values = values
        self._escape = escape
        self._place = place
        self._at = 0

    def word(self, end: str) -> str:
        """Up to the character ``end``, which is passed over, or to the end of the text."""
        result = ""
        while self._at < len(self._text):
            char = self._text[self._at]
            if end and char == end:
                self._at += 1
                return result
            if char == "'":
                result += self._single()
            elif char == '"':
                self._at += 1
                result += self._double()
            else:
                result += self._plain()
        if end:
            raise self._place.error("a `${` has no `}`")
        return result

    def _single(self) -> str:
        close = self._text.find("'", self._at + 1)
        if close < 0:
            raise self._place.error("a ' has no second one")
        inner = self._text[self._at + 1 : close]
        self._at = close + 1
        return inner

    def _double(self) -> str:
        result = ""
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == '"':
                self._at += 1
                return result
            follows = self._text[self._at + 1 : self._at + 2]
            if char == self._escape and follows and follows not in ('"', "$", self._escape):
                result += char  # In double quotes, an escape before another character stays.
                self._at += 1
            else:
                result += self._plain()
        raise self._place.error('a " has no second one')

    def _plain(self) -> str:
        """One character: escaped, a variable, or itself."""
        char = self._text[self._at]
        self._at += 1
        if char == self._escape and self._at < len(self._text):
            self._at += 1
            return self._text[self._at - 1]
        return self._variable() if char == "$" else char

    def _variable(self) -> str:
        if self._text.startswith("{", self._at):
            self._at += 1
            return self._braces()
        found = _NAME.match(self._text, self._at)
        if found is None:
            return "$"
        self._at = found.end()
        return self._values.get(found.group(), "")

    def _braces(self) -> str:
        found = _NAME.match(self._text, self._at)
        if found is None:
            raise self._place.error("a `${` is not followed by a name")
        self._at = found.end()
        name = found.group()
        value = self._values.get(name)
        operator = re.compile(r":?[-+?]|\}").match(self._text, self._at)
        if operator is None:
            raise self._place.error(
                f"`${{{name}` has a form of substitution that is not known",
                hint="known: ${name}, ${name:-word}, ${name:+word}, ${name:?word}, and without `:`",
            )
        self._at = operator.end()
        if operator.group() == "}":
            return value or ""
        word = self.word("}")
        is_set = bool(value) if operator.group().startswith(":") else value is not None
        kind = operator.group()[-1]
        if kind == "?" and not is_set:
            raise self._place.error(f"`{name}` is not set: {word}" if word else f"no `{name}`")
        if kind == "+":
            return word if is_set else ""
        return (value or "") if is_set else word


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]")
