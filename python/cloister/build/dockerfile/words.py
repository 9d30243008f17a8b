"""Words of an instruction: lists of texts, words between white space, quotes."""

import json
import re

from cloister.build.dockerfile.place import Place


def json_list(text: str, place: Place) -> list[str] | None:
    """The exec form, a JSON list of texts; ``None``: it is something else.

    Raises:
        MalformedImage: It is a JSON list of something else.
    """
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list):
        return None
    if not all(isinstance(item, str) for item in value):
        raise place.error(
            f"the list {text[:60]!r} has something else than texts",
            hint="put each in double quotes",
        )
    # As Go reads them: half of a pair that stands for one character is no character.
    return [_HALF.sub("\N{REPLACEMENT CHARACTER}", item) for item in value]


def split(text: str, escape: str) -> list[str]:
    """Words between white space outside of quotes; quotes and escapes are kept as they are."""
    words: list[str] = []
    word: list[str] = []
    quote = ""
    at = 0
    while at < len(text):
        char = text[at]
        if char == escape and quote != "'":
            # An escape at the very end stands for nothing.
            if at + 1 < len(text):
                word.append(text[at : at + 2])
            at += 2
            continue
        at += 1
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char.isspace():
            if word:
                words.append("".join(word))
            word = []
            continue
        word.append(char)
    return [*words, "".join(word)] if word else words


def unquoted(text: str, place: Place) -> str:
    """A word without its quotes and escapes; ``$`` means nothing.

    Raises:
        MalformedImage: A quote has no second one.
    """
    result: list[str] = []
    quote = ""
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "\\" and quote != "'":
            result.append(text[at : at + 1])
            at += 1
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        else:
            result.append(char)
    if quote:
        raise place.error(f"a {quote} has no second one")
    return "".join(result)


_HALF = re.compile("[\ud800-\udfff]")
