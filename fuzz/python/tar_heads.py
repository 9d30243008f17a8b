"""Heads of tar archives, made right: a fuzzer cannot guess their checksum."""

import itertools


def repaired(data: bytes) -> bytes:
    """Heads with the checksum they should have."""
    fixed = bytearray(data)
    for at in range(0, len(fixed) - BLOCK + 1, BLOCK):
        if fixed[at + 257 : at + 262] == b"ustar":
            fixed[at + 148 : at + 156] = b" " * 8
            total = sum(itertools.islice(fixed, at, at + BLOCK))
            fixed[at + 148 : at + 156] = b"%06o\0 " % total
    return bytes(fixed)


BLOCK = 512
