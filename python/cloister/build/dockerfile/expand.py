"""Variables in a word: ``$name``, ``${name…}``, quotes and escapes, as BuildKit's lexer has it."""

import re
from collections.abc import Mapping

from cloister.build.dockerfile.place import Place
from cloister.build.dockerfile.shell_pattern import ShellPattern


def expand(  # noqa: PLR0913 - a word and all that decides what becomes of it
    text: str,
    values: Mapping[str, str],
    escape: str,
    place: Place,
    *,
    keeps_quotes: bool = False,
    undefined: set[str] | None = None,
) -> str:
    """A word with its variables put in and its quotes taken off.

    Args:
        text: The word.
        values: Variables by name; one that is not there is empty.
        escape: The escape character.
        place: For messages.
        keeps_quotes: Quotes are text, as in a heredoc.
        undefined: Gets the names that are not there, where the word says nothing for that case.

    Raises:
        MalformedImage: A quote or brace without its end, or a form of substitution that is not
            known.
    """
    expander = _Expander(text, values, escape, place, keeps_quotes=keeps_quotes)
    expanded = expander.word("")
    if undefined is not None:
        undefined |= expander.undefined
    return expanded


class _Expander:
    def __init__(
        self,
        text: str,
        values: Mapping[str, str],
        escape: str,
        place: Place,
        *,
        keeps_quotes: bool,
    ) -> None:
        self._keeps_quotes = keeps_quotes
        self._text = text
        self._values = values
        self._escape = escape
        self._place = place
        self._at = 0
        self.undefined: set[str] = set()

    def word(self, end: str) -> str:
        """Up to the character ``end``, which is passed over, or to the end of the text."""
        result = ""
        while self._at < len(self._text):
            char = self._text[self._at]
            if end and char == end:
                self._at += 1
                return result
            if char == "'" and not self._keeps_quotes:
                result += self._single()
            elif char == '"' and not self._keeps_quotes:
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
        return self._value(found.group()) or ""

    def _value(self, name: str) -> str | None:
        if name not in self._values:
            self.undefined.add(name)
        return self._values.get(name)

    def _braces(self) -> str:
        found = _NAME.match(self._text, self._at)
        if found is None:
            raise self._place.error("a `${` is not followed by a name")
        self._at = found.end()
        name = found.group()
        operator = _OPERATOR.match(self._text, self._at)
        if operator is None:
            raise self._place.error(
                f"`${{{name}` has a form of substitution that is not known",
                hint="known: ${name}, with :-word, :+word, :?word and the same without `:`,"
                " #pattern, ##pattern, %pattern, %%pattern, /pattern/word, //pattern/word",
            )
        self._at = operator.end()
        kind = operator.group()
        if kind == "}":
            return self._value(name) or ""
        if kind[0] in "#%/":
            return self._edited(kind, self._value(name) or "")
        value = self._values.get(name)
        word = self.word("}")
        is_set = bool(value) if kind.startswith(":") else value is not None
        if kind[-1] == "?" and not is_set:
            raise self._place.error(f"`{name}` is not set: {word}" if word else f"no `{name}`")
        if kind[-1] == "+":
            return word if is_set else ""
        return (value or "") if is_set else word

    def _edited(self, kind: str, value: str) -> str:
        """A part taken off, or replaced: patterns with ``*`` and ``?``, as the shell has them."""
        if kind[0] == "/":
            pattern = ShellPattern(self.word("/"))
            return pattern.replaced(value, self.word("}"), everywhere=kind == "//")
        pattern = ShellPattern(self.word("}"))
        is_longest = len(kind) > 1
        if kind[0] == "#":
            ends = pattern.ends(value)
            return value[max(ends, default=0) if is_longest else next(ends, 0) :]
        ends = pattern.reversed().ends(value[::-1])
        return value[: len(value) - (max(ends, default=0) if is_longest else next(ends, 0))]


_OPERATOR = re.compile(r":?[-+?]|##?|%%?|//?|\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]")
