"""DER, as much as certificates need, written as told: right or wrong."""

import datetime as dt

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
UTF8_STRING, UTC_TIME, GENERALIZED_TIME, SEQUENCE, SET = 0x0C, 0x17, 0x18, 0x30, 0x31


def tlv(tag: int, *parts: bytes) -> bytes:
    contents = b"".join(parts)
    return bytes([tag]) + length(len(contents)) + contents


def length(number: int) -> bytes:
    if number < 0x80:
        return bytes([number])
    digits = number.to_bytes((number.bit_length() + 7) // 8)
    return bytes([0x80 | len(digits)]) + digits


def sequence(*parts: bytes) -> bytes:
    return tlv(SEQUENCE, *parts)


def integer(value: int) -> bytes:
    return tlv(INTEGER, value.to_bytes(value.bit_length() // 8 + 1))


def oid(text: str) -> bytes:
    first, second, *rest = (int(part) for part in text.split("."))
    out = bytearray()
    for number in (first * 40 + second, *rest):
        digits = [number & 0x7F]
        while number := number >> 7:
            digits.append(number & 0x7F | 0x80)
        out += bytes(reversed(digits))
    return tlv(OID, bytes(out))


def bit_string(bits: bytes, unused: int = 0) -> bytes:
    return tlv(BIT_STRING, bytes([unused]), bits)


def name(common: str, organization: str = "Conformance suite, not AWS") -> bytes:
    parts = (("2.5.4.10", organization), ("2.5.4.3", common))
    return sequence(
        *(tlv(SET, sequence(oid(kind), tlv(UTF8_STRING, text.encode()))) for kind, text in parts)
    )


def time(at_ms: int) -> bytes:
    """RFC 5280 4.1.2.5: UTCTime until 2049."""
    at = dt.datetime.fromtimestamp(at_ms // 1000, dt.UTC)
    if at.year < 2050:
        return tlv(UTC_TIME, at.strftime("%y%m%d%H%M%SZ").encode())
    return generalized(at_ms)


def generalized(at_ms: int) -> bytes:
    at = dt.datetime.fromtimestamp(at_ms // 1000, dt.UTC)
    return tlv(GENERALIZED_TIME, at.strftime("%Y%m%d%H%M%SZ").encode())


def extension(kind: str, value: bytes, *, critical: bool = False) -> bytes:
    flag = tlv(BOOLEAN, b"\xff") if critical else b""
    return sequence(oid(kind), flag, tlv(OCTET_STRING, value))
