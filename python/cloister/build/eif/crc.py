"""CRC-32 of two pieces from the CRC-32 of each.

The checksum of an EIF covers its header first, and the header is known last. Appending ``length``
zero bytes is a linear map on the register, so it is applied by squaring a 32 by 32 bit matrix, as
zlib's ``crc32_combine`` does, which Python does not offer.
"""


def combine(first: int, second: int, length: int) -> int:
    """CRC-32 (IEEE) of ``a + b`` from that of ``a``, that of ``b`` and the length of ``b``."""
    if length == 0:
        return first
    power = _squared(_squared([POLYNOMIAL, *(1 << bit for bit in range(31))]))  # four zero bits
    while length:
        power = _squared(power)  # one zero byte, then two, four, eight
        if length & 1:
            first = _times(power, first)
        length >>= 1
    return first ^ second


def _times(matrix: list[int], vector: int) -> int:
    total = 0
    for row in matrix:
        if not vector:
            break
        if vector & 1:
            total ^= row
        vector >>= 1
    return total


def _squared(matrix: list[int]) -> list[int]:
    return [_times(matrix, row) for row in matrix]


POLYNOMIAL = 0xEDB8_8320
"""IEEE 802.3, bit-reflected."""
