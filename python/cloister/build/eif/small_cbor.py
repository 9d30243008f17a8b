"""The little of CBOR (RFC 8949) that an EIF's signature needs, in both directions.

Strict on purpose: the section comes from a stranger, and a general decoder knows tags that build
objects. Only unsigned and negative integers, byte and text strings, arrays and maps of definite
length, in the shortest spelling, so that one value has one spelling.
"""

from typing import NoReturn

from cloister.errors import MalformedImage

UNSIGNED, NEGATIVE, BYTES, TEXT, ARRAY, MAP = range(6)


def head(major: int, value: int) -> bytes:
    """The first bytes of an item: its type, and its value or length."""
    if value < 24:  # noqa: PLR2004 - RFC 8949, section 3
        return bytes([major << 5 | value])
    for info, width in _WIDTHS.items():
        if value < 1 << (8 * width):
            return bytes([major << 5 | info]) + value.to_bytes(width, "big")
    raise ValueError("too large for CBOR")


def byte_string(value: bytes) -> bytes:
    """A byte string."""
    return head(BYTES, len(value)) + value


def text(value: str) -> bytes:
    """A text string."""
    encoded = value.encode()
    return head(TEXT, len(encoded)) + encoded


def small_integers(value: bytes) -> bytes:
    """Bytes as an array of integers, as serde writes a ``Vec<u8>``."""
    return head(ARRAY, len(value)) + b"".join(head(UNSIGNED, byte) for byte in value)


class Reader:
    """Reads items one after the other.

    Args:
        data: The bytes.
        what: What they are, for messages.
    """

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._at = 0
        self._what = what

    def expect(self, major: int) -> int:
        """The value or length of the next item, which must be of this type."""
        first = self._take(1)[0]
        if first >> 5 != major:
            self._fail(f"type {first >> 5} where {major} is expected")
        info = first & 31
        if info < 24:  # noqa: PLR2004 - as above
            return info
        if info not in _WIDTHS:
            self._fail("an indefinite or reserved length")
        value = int.from_bytes(self._take(_WIDTHS[info]), "big")
        if head(major, value)[0] != first:
            self._fail("a number that is not in its shortest spelling")
        return value

    def byte_string(self) -> bytes:
        """A byte string."""
        return self._take(self.expect(BYTES))

    def text(self) -> str:
        """A text string."""
        raw = self._take(self.expect(TEXT))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self._fail("text that is not UTF-8")

    def small_integers(self) -> bytes:
        """An array of integers from 0 to 255, as bytes."""
        count = self.expect(ARRAY)
        if count > len(self._data) - self._at:
            self._fail("a list that is longer than the data")
        values = [self.expect(UNSIGNED) for _ in range(count)]
        if any(value > MAX_BYTE for value in values):
            self._fail("an integer over 255 in a list of bytes")
        return bytes(values)

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._data):
            self._fail("bytes after the end")

    def _take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) != count:
            self._fail("the data ends early")
        self._at += count
        return taken

    def _fail(self, problem: str) -> NoReturn:
        raise MalformedImage(f"{self._what}: offset {self._at}: {problem}")


_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}
MAX_BYTE = 255
