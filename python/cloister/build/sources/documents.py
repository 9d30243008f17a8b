"""JSON documents of an image, read strictly: what is there has the type that is expected.

One small reader for manifests, indexes and configurations, so that every message names the document
and the field.
"""

import json
import re
from typing import Any

from cloister.errors import MalformedImage


class Document:
    """A JSON object of somebody else's making.

    Args:
        value: The object.
        name: How messages call it.
    """

    def __init__(self, value: dict[str, Any], name: str) -> None:
        self._value = value
        self.name = name

    @classmethod
    def read(cls, raw: bytes, name: str) -> "Document":
        """Reads an object.

        Raises:
            MalformedImage: It is not JSON, or not an object.
        """
        value = decoded(raw, name)
        if not isinstance(value, dict):
            raise MalformedImage(f"{name} is not a JSON object")
        return cls(value, name)

    def text(self, field: str) -> str:
        """A text; empty where it is not there or null."""
        found = self._value.get(field)
        if found is None:
            return ""
        if not isinstance(found, str) or "\0" in found:
            raise self.error(field, "a text")
        return found

    def whole(self, field: str) -> int:
        """A whole number that is not negative; 0 where it is not there or null."""
        found = self._value.get(field)
        if found is None:
            return 0
        if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 1 << 63:
            raise self.error(field, "a whole number, not negative")
        return found

    def texts(self, field: str) -> list[str]:
        """A list of texts; empty where it is not there or null."""
        found = self._value.get(field)
        if found is None:
            return []
        if not isinstance(found, list) or not all(
            isinstance(item, str) and "\0" not in item for item in found
        ):
            raise self.error(field, "a list of texts")
        return found

    def names(self, field: str) -> list[str]:
        """The keys of an object; none where it is not there or null."""
        found = self._value.get(field)
        if found is None:
            return []
        if not isinstance(found, dict):
            raise self.error(field, "an object")
        return list(found)

    def pairs(self, field: str) -> dict[str, str]:
        """An object of texts; empty where it is not there or null."""
        inner = self.inner(field)
        return {} if inner is None else {key: inner.text(key) for key in self.names(field)}

    def inner(self, field: str) -> "Document | None":
        """An object; ``None`` where it is not there or null."""
        found = self._value.get(field)
        if found is None:
            return None
        if not isinstance(found, dict):
            raise self.error(field, "an object")
        return Document(found, f"{self.name}, `{field}`")

    def each(self, field: str) -> list["Document"]:
        """A list of objects; empty where it is not there or null."""
        found = self._value.get(field)
        if found is None:
            return []
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise self.error(field, "a list of objects")
        return [
            Document(item, f"{self.name}, `{field}[{index}]`") for index, item in enumerate(found)
        ]

    def digest(self, field: str) -> str:
        """A digest that can be checked.

        Raises:
            MalformedImage: It is not there, or not ``sha256:`` and 64 hexadecimal digits.
        """
        return checked_digest(self.text(field), f"{self.name}, `{field}`")

    def error(self, field: str, expected: str) -> MalformedImage:
        """The error that names a field."""
        return MalformedImage(f"{self.name}: `{field}` is not {expected}")


def decoded(raw: bytes, name: str) -> Any:  # noqa: ANN401 - whatever the document holds
    """JSON of any shape.

    Raises:
        MalformedImage: It is not JSON, or too deep.
    """
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise MalformedImage(f"{name} is not JSON") from None


def checked_digest(text: str, name: str) -> str:
    """A digest that can be checked and may be part of a path.

    Raises:
        MalformedImage: It is not ``sha256:`` and 64 lower-case hexadecimal digits.
    """
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise MalformedImage(f"{name} is not a digest, sha256: and 64 hexadecimal digits")
    return text
