"""The ``COSE_Sign1`` around the payload (RFC 9052 4.2). Only its protected header is signed."""

from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from tests.conformance.attestation.catalogue.case import Case, Room, right
from tests.conformance.attestation.forge import cbor
from tests.conformance.attestation.forge.certificates import ORDER

MALFORMED = "MalformedDocument"


def cases() -> Iterator[Case]:
    room = Room("envelope")
    _spellings(room)
    _shapes(room)
    _headers(room)
    _signatures(room)
    return iter(room)


def _parts(**changes: bytes) -> list[bytes]:
    names = ("protected", "unprotected", "payload", "signature")
    return list((dict(zip(names, right().parts(), strict=True)) | changes).values())


def _whole(**changes: bytes) -> bytes:
    return cbor.array(*_parts(**changes))


def _spellings(room: Room) -> None:
    tag = cbor.head(cbor.TAG, 18)
    empty = cbor.indefinite(cbor.MAP)
    room.accept("tagged", "with the tag 18", "F3", tag + _whole())
    room.accept(
        "indefinite-array", "an array until a break", "F3", cbor.indefinite(cbor.ARRAY, *_parts())
    )
    room.accept("indefinite-header", "an empty map until a break", "F5", _whole(unprotected=empty))
    room.accept(
        "all-indefinite",
        "tag, array and map in their other spelling",
        "F3",
        tag + cbor.indefinite(cbor.ARRAY, *_parts(unprotected=empty)),
    )


def _shapes(room: Room) -> None:
    def refuse(name: str, says: str, rule: str, document: bytes) -> None:
        room.refuse(name, says, rule, MALFORMED, document)

    whole, parts = _whole(), _parts()
    refuse("nothing", "no byte", "F2", b"")
    refuse("text", "base64 of it", "F2", cbor.text("hEShATgi"))
    refuse("number", "an integer", "F3", cbor.integer(18))
    refuse("empty-array", "no parts", "F3", cbor.array())
    refuse("three-parts", "without the signature", "F3", cbor.array(*parts[:3]))
    refuse("five-parts", "with a part more", "F3", cbor.array(*parts, cbor.NULL))
    refuse("unfinished-array", "no break behind the parts", "F2", cbor.indefinite(4, *parts)[:-1])
    refuse(
        "long-array",
        "the number of parts in 2 bytes",
        "F2",
        cbor.long_head(4, 4, 1) + b"".join(parts),
    )
    refuse(
        "map",
        "a map of the parts",
        "F3",
        cbor.mapping(*zip(map(cbor.integer, range(4)), parts, strict=True)),
    )
    refuse("trailing-byte", "a byte behind its end", "F2", whole + b"\0")
    refuse("twice", "a second document behind it", "F2", whole + whole)
    refuse("cut", "the last byte is missing", "F2", whole[:-1])
    refuse("cut-in-half", "the second half is missing", "F2", whole[: len(whole) // 2])
    for name, number in (
        ("mac0", 17),
        ("sign", 98),
        ("encrypt0", 16),
        ("unknown", 998),
        ("cwt", 61),
    ):
        refuse(f"tag-{name}", f"with the tag {number}", "F3", cbor.head(cbor.TAG, number) + whole)
    refuse("two-tags", "18 twice", "F3", cbor.head(cbor.TAG, 18) * 2 + whole)
    refuse("self-described", "behind the tag 55799", "F3", cbor.head(cbor.TAG, 55799) + whole)
    refuse("long-tag", "the tag 18 in 2 bytes", "F2", cbor.long_head(cbor.TAG, 18, 1) + whole)
    long = right()
    long.fields["user_data"] = cbor.data(bytes(16_384))
    # No document breaks F1 alone: what is within all other bounds is shorter (payload/largest).
    says = "more than 16 KiB: user data beyond its own bound too, as nothing else gets there"
    refuse("too-long", says, "F1", long.encode())
    detached = _whole(payload=cbor.NULL)
    refuse("detached", "without its payload, as COSE allows", "F6", detached)
    refuse("no-payload", "a payload of no bytes", "P1", _whole(payload=cbor.data(b"")))
    pieces = cbor.indefinite(cbor.BYTES, right().parts()[2])
    refuse("payload-in-pieces", "a byte string until a break", "F2", _whole(payload=pieces))
    unwrapped = _whole(payload=right().encoded_payload())
    refuse("payload-as-map", "not in a byte string", "F6", unwrapped)


def _headers(room: Room) -> None:
    algorithm = (cbor.integer(1), cbor.integer(-35))

    def protected(name: str, says: str, header: bytes) -> None:
        document = right()
        document.protected = header
        room.refuse(f"protected-{name}", says, "F4", MALFORMED, document.encode())

    protected("empty", "no header at all", b"")
    protected("empty-map", "a map of nothing", cbor.mapping())
    for name, number in (("es256", -7), ("es512", -36), ("eddsa", -8), ("hs256", 5), ("none", 0)):
        protected(
            name, f"algorithm {number}", cbor.mapping((cbor.integer(1), cbor.integer(number)))
        )
    protected(
        "named", "the algorithm as a text", cbor.mapping((cbor.integer(1), cbor.text("ES384")))
    )
    protected(
        "more",
        "a content type besides",
        cbor.mapping(algorithm, (cbor.integer(3), cbor.integer(0))),
    )
    critical = (cbor.integer(2), cbor.array(cbor.integer(1)))
    protected("critical", "a list of critical headers besides", cbor.mapping(algorithm, critical))
    protected("twice", "the algorithm twice", cbor.mapping(algorithm, algorithm))
    protected("trailing", "a byte behind the map", cbor.mapping(algorithm) + b"\0")
    protected("long", "-35 in 3 bytes", b"\xa1\x01\x39\x00\x22")
    protected("indefinite", "the map until a break", b"\xbf\x01\x38\x22\xff")
    protected("array", "an array in place of the map", cbor.array(*algorithm))
    raw = _whole(protected=cbor.mapping(algorithm))
    room.refuse("protected-as-map", "not in a byte string", "F4", MALFORMED, raw)

    def unprotected(name: str, says: str, header: bytes) -> None:
        room.refuse(f"unprotected-{name}", says, "F5", MALFORMED, _whole(unprotected=header))

    unprotected(
        "key-id", "a key id that nobody signed", cbor.mapping((cbor.integer(4), cbor.data(b"1")))
    )
    unprotected("algorithm", "the algorithm again", cbor.mapping(algorithm))
    unprotected("null", "null in place of the map", cbor.NULL)
    unprotected("bytes", "the map in a byte string", cbor.data(cbor.mapping()))
    moved = cbor.array(cbor.data(b""), cbor.mapping(algorithm), *right().parts()[2:])
    room.refuse("algorithm-moved", "the algorithm where nobody signed it", "F4", MALFORMED, moved)


def _signatures(room: Room) -> None:
    document = right()
    low, high = document.signature(), document.signature(high=True)

    def whole(signature: bytes) -> bytes:
        return _whole(signature=cbor.data(signature))

    room.accept("high-s", "the other of the two signatures", "S1", whole(high))

    def refuse(name: str, says: str, code: str, signature: bytes, **more: Any) -> None:
        rule = "F6" if code == MALFORMED else "S1"
        room.refuse(f"signature-{name}", says, rule, code, whole(signature), **more)

    refuse("of-95", "a byte too few", MALFORMED, low[:-1])
    refuse("of-97", "a byte too many", MALFORMED, low + b"\0")
    refuse("of-none", "no bytes", MALFORMED, b"")
    r, s = int.from_bytes(low[:48]), int.from_bytes(low[48:])
    refuse("in-der", "as X.509 writes it", MALFORMED, encode_dss_signature(r, s))
    refuse("zero", "all zero", "BadSignature", bytes(96))
    refuse("r-zero", "r is zero", "BadSignature", bytes(48) + low[48:])
    refuse("s-zero", "s is zero", "BadSignature", low[:48] + bytes(48))
    refuse("s-order", "s is the order of the group", "BadSignature", low[:48] + ORDER.to_bytes(48))
    refuse("r-order", "r is the order of the group", "BadSignature", ORDER.to_bytes(48) + low[48:])
    refuse("ones", "all ones", "BadSignature", b"\xff" * 96)
    refuse("swapped", "s before r", "BadSignature", low[48:] + low[:48])
    refuse("flipped", "one bit is another", "BadSignature", low[:-1] + bytes([low[-1] ^ 1]))
    other = right()
    other.fields["nonce"] = cbor.NULL
    refuse("of-another", "of another document", "BadSignature", other.signature())
