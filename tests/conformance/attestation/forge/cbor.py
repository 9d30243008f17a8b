"""CBOR in the shortest form, and the heads to write any other with."""

UNSIGNED, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG = range(7)
NULL, BREAK = b"\xf6", b"\xff"
_SHORT = 23


def head(major: int, argument: int) -> bytes:
    if argument <= _SHORT:
        return bytes([major << 5 | argument])
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << (8 * size):
            return bytes([major << 5 | code]) + argument.to_bytes(size)
    raise ValueError(argument)


def long_head(major: int, argument: int, size: int = 8) -> bytes:
    """The argument in more bytes than it needs."""
    return bytes([major << 5 | 24 + size.bit_length() - 1]) + argument.to_bytes(size)


def integer(value: int) -> bytes:
    return head(UNSIGNED, value) if value >= 0 else head(NEGATIVE, -1 - value)


def data(value: bytes) -> bytes:
    return head(BYTES, len(value)) + value


def text(value: str) -> bytes:
    return head(TEXT, len(value.encode())) + value.encode()


def array(*items: bytes) -> bytes:
    return head(ARRAY, len(items)) + b"".join(items)


def mapping(*pairs: tuple[bytes, bytes]) -> bytes:
    return head(MAP, len(pairs)) + b"".join(key + value for key, value in pairs)


def indefinite(major: int, *parts: bytes) -> bytes:
    return bytes([major << 5 | 31]) + b"".join(parts) + BREAK
