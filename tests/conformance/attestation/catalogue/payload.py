"""The map inside (nsm-api, attestation_process.md 3.2.2): nine fields, each within bounds."""

from collections.abc import Iterator

from tests.conformance.attestation.catalogue.case import Case, Room, right, with_field
from tests.conformance.attestation.catalogue.changes import deeper, grown_to, in_link
from tests.conformance.attestation.forge import cbor, certificates, documents
from tests.conformance.attestation.forge.documents import PCR0, PCR4, registers

MALFORMED = "MalformedDocument"
BYTES_OR_NULL = ("public_key", "user_data", "nonce")
ALL = ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle", *BYTES_OR_NULL)


def cases() -> Iterator[Case]:
    room = Room("payload")
    _spellings(room)
    _presence(room)
    _types(room)
    _small_fields(room)
    _registers(room)
    _certificates(room)
    _sizes(room)
    return iter(room)


def _refuse(room: Room, field: str, name: str, says: str, rule: str, value: bytes) -> None:
    room.refuse(f"{field}-{name}", says, rule, MALFORMED, with_field(field, value))


def _raw(payload: bytes) -> bytes:
    document = right()
    document.payload = payload
    return document.encode()


def _spellings(room: Room) -> None:
    definite = right()
    definite.is_indefinite = False
    room.accept("definite", "a map of nine, as until 2025-04", "P1", definite.encode())
    reordered = right()
    reordered.fields = dict(reversed(reordered.fields.items()))
    room.accept("reordered", "the fields in another order", "P1", reordered.encode())
    payload = right().encoded_payload()
    room.refuse("trailing", "a byte behind the map", "P1", MALFORMED, _raw(payload + b"\0"))
    room.refuse("unfinished", "no break at the end", "F2", MALFORMED, _raw(payload[:-1]))
    room.refuse(
        "fewer-than-told",
        "a map of nine with eight",
        "F2",
        MALFORMED,
        _raw(
            b"\xa9"
            + b"".join(cbor.text(key) + value for key, value in list(right().fields.items())[:8])
        ),
    )
    room.refuse(
        "array",
        "an array of the values",
        "P1",
        MALFORMED,
        _raw(cbor.array(*right().fields.values())),
    )
    room.refuse(
        "tagged", "behind a tag", "P1", MALFORMED, _raw(cbor.head(cbor.TAG, 55799) + payload)
    )
    room.refuse(
        "long-count",
        "the number of fields in 2 bytes",
        "F2",
        MALFORMED,
        _raw(b"\xb8\x09" + payload[1:-1]),
    )
    pairs = [cbor.text(key) + value for key, value in right().fields.items()]
    key_bytes = [*pairs[:-1], cbor.data(b"nonce") + right().fields["nonce"]]
    room.refuse(
        "key-of-bytes",
        "a key that is no text",
        "P1",
        MALFORMED,
        _raw(cbor.indefinite(5, *key_bytes)),
    )
    in_pieces = [*pairs[:-1], cbor.indefinite(3, cbor.text("nonce")) + right().fields["nonce"]]
    room.refuse(
        "key-in-pieces",
        "a key until a break",
        "F2",
        MALFORMED,
        _raw(cbor.indefinite(5, *in_pieces)),
    )
    no_value = [*pairs[:-1], cbor.text("nonce")]
    room.refuse(
        "key-alone",
        "the last key has no value",
        "F2",
        MALFORMED,
        _raw(cbor.indefinite(5, *no_value)),
    )


def _presence(room: Room) -> None:
    for field in ALL:
        fewer = right()
        del fewer.fields[field]
        room.refuse(f"{field}-missing", "it is not there", "P1", MALFORMED, fewer.encode())
        pairs = [cbor.text(key) + value for key, value in right().fields.items()]
        again = cbor.text(field) + right().fields[field]
        twice = _raw(cbor.indefinite(cbor.MAP, *pairs, again))
        room.refuse(f"{field}-twice", "it is there twice, with one value", "P1", MALFORMED, twice)
    pairs = [cbor.text(key) + value for key, value in right().fields.items()]
    other = cbor.text("pcrs") + registers({0: bytes([7] * 48)})
    for name, entries in (("first", [other, *pairs]), ("last", [*pairs, other])):
        says = f"a second value, which comes {name}"
        room.refuse(f"pcrs-other-{name}", says, "P1", MALFORMED, _raw(cbor.indefinite(5, *entries)))
    room.refuse(
        "unknown-field", "a tenth field", "P1", MALFORMED, with_field("version", cbor.integer(1))
    )
    room.refuse(
        "misspelt-field", "`Nonce` in place of `nonce`", "P1", MALFORMED, _renamed("nonce", "Nonce")
    )
    tpm = _renamed("pcrs", "nitrotpm_pcrs")
    room.refuse("nitrotpm", "a document of a NitroTPM", "P9", MALFORMED, tpm)
    both = with_field("nitrotpm_pcrs", registers({0: PCR0}))
    room.refuse("nitrotpm-too", "its field besides", "P9", MALFORMED, both)


def _renamed(old: str, new: str) -> bytes:
    document = right()
    document.fields = {new if key == old else key: value for key, value in document.fields.items()}
    return document.encode()


def _types(room: Room) -> None:
    for field in ALL:
        # A boolean is right nowhere; null is for three of them.
        _refuse(room, field, "boolean", "true in its place", "F2", b"\xf5")
        if field not in BYTES_OR_NULL:
            _refuse(room, field, "null", "null in its place", "F2", cbor.NULL)
    for field in BYTES_OR_NULL:
        _refuse(room, field, "text", "a text in its place", "P8", cbor.text("bytes"))
        pieces = cbor.indefinite(cbor.BYTES, cbor.data(b"by"), cbor.data(b"tes"))
        _refuse(room, field, "in-pieces", "a byte string until a break", "F2", pieces)
        _refuse(room, field, "undefined", "undefined in its place", "P8", b"\xf7")
        _refuse(
            room,
            field,
            "long",
            "its length in 9 bytes",
            "F2",
            cbor.long_head(cbor.BYTES, 4) + b"four",
        )
        _refuse(room, field, "huge", "2^64 minus 1 bytes long", "F2", b"\x5b" + b"\xff" * 8)
        _refuse(room, field, "deep", "4 000 arrays in each other", "P8", b"\x81" * 4000 + b"\0")
        room.accept(f"{field}-absent", "null", "P8", with_field(field, cbor.NULL))
        room.accept(f"{field}-empty", "no bytes", "P8", with_field(field, cbor.data(b"")))
        room.accept(
            f"{field}-of-1024",
            "as long as it may be",
            "P8",
            with_field(field, cbor.data(b"x" * 1024)),
        )
        _refuse(room, field, "of-1025", "a byte longer", "P8", cbor.data(b"x" * 1025))


def _small_fields(room: Room) -> None:
    for name, says, value in (
        ("one", "a character", "i"),
        ("of-256", "as long as it may be", "i" * 256),
        ("utf-8", "letters of two and three bytes", "i-ü-水"),
    ):
        room.accept(f"module_id-{name}", says, "P2", with_field("module_id", cbor.text(value)))
    _refuse(room, "module_id", "of-257", "a byte longer", "P2", cbor.text("i" * 257))
    _refuse(room, "module_id", "of-none", "an empty text", "P2", cbor.text(""))
    _refuse(room, "module_id", "bytes", "a byte string", "P2", cbor.data(b"i-1"))
    for name, text in (
        ("latin", b"i-\xfc"),
        ("surrogate", b"\xed\xa0\x80"),
        ("overlong", b"\xc0\xaf"),
    ):
        broken = cbor.head(cbor.TEXT, len(text)) + text
        _refuse(room, "module_id", f"not-utf-8-{name}", "a text that is not UTF-8", "P2", broken)
    for name, digest in (
        ("sha-512", "SHA512"),
        ("lower-case", "sha384"),
        ("hyphen", "SHA-384"),
        ("space", "SHA384 "),
        ("empty", ""),
    ):
        _refuse(room, "digest", name, f"`{digest}`", "P3", cbor.text(digest))
    _refuse(room, "timestamp", "zero", "0", "P4", cbor.integer(0))
    _refuse(room, "timestamp", "negative", "minus 1", "P4", cbor.integer(-1))
    _refuse(
        room,
        "timestamp",
        "float",
        "a floating-point number",
        "P4",
        bytes.fromhex("fb427a0c1a5b800000"),
    )
    _refuse(room, "timestamp", "text", "a text", "P4", cbor.text("2026-09-21T14:13:20Z"))
    _refuse(
        room, "timestamp", "tagged", "behind the tag 1", "P4", b"\xc1" + right().fields["timestamp"]
    )
    _refuse(room, "timestamp", "bignum", "a number of 9 bytes", "P4", b"\xc2\x49\x01" + bytes(8))
    _refuse(room, "timestamp", "long", "5 in 9 bytes", "F2", cbor.long_head(cbor.UNSIGNED, 5))


def _registers(room: Room) -> None:
    def refuse(name: str, says: str, value: bytes, rule: str = "P5") -> None:
        _refuse(room, "pcrs", name, says, rule, value)

    def accept(name: str, says: str, values: dict[int, bytes]) -> None:
        room.accept(f"pcrs-{name}", says, "P5", with_field("pcrs", registers(values)))

    accept("one", "PCR0 alone", {0: PCR0})
    accept("of-31", "the last index", {0: PCR0, 31: PCR4})
    accept("all-32", "every index", dict.fromkeys(range(32), PCR0))
    accept("of-32-bytes", "a register of SHA-256", {0: PCR0, 16: bytes([1] * 32)})
    accept("of-64-bytes", "a register of SHA-512", {0: PCR0, 16: bytes([1] * 64)})
    pairs = [cbor.integer(0), cbor.data(PCR0), cbor.integer(4), cbor.data(PCR4)]
    indefinite = cbor.indefinite(cbor.MAP, *pairs)
    room.accept("pcrs-indefinite", "a map until a break", "P5", with_field("pcrs", indefinite))
    unordered = cbor.mapping((cbor.integer(4), cbor.data(PCR4)), (cbor.integer(0), cbor.data(PCR0)))
    room.accept("pcrs-unordered", "PCR4 before PCR0", "P5", with_field("pcrs", unordered))
    refuse("none", "no register", registers({}))
    refuse("without-0", "no PCR0, which tells debug enclaves", registers({4: PCR4}))
    refuse("of-index-32", "an index too many", registers({0: PCR0, 32: PCR4}))
    refuse("of-index-256", "0 in its lowest byte", registers({256: PCR0, 0: PCR0}))
    refuse("of-index-2-64", "the largest number", registers({0: PCR0, 2**64 - 1: PCR4}))
    many = registers(dict.fromkeys(range(33), PCR0))
    refuse("33", "33 registers", many)
    for size in (0, 1, 31, 33, 47, 49, 63, 65):
        refuse(
            f"of-{size}-bytes", f"a register of {size} bytes", registers({0: PCR0, 16: bytes(size)})
        )
    refuse("0-of-47-bytes", "PCR0 is a byte short", registers({0: PCR0[:47]}))
    one = (cbor.integer(0), cbor.data(PCR0))
    refuse("index-twice", "PCR0 twice", cbor.mapping(one, one))
    refuse(
        "index-twice-other",
        "PCR0 with two values",
        cbor.mapping(one, (cbor.integer(0), cbor.data(PCR4))),
    )
    refuse(
        "index-long", "PCR0 in two spellings", cbor.mapping(one, (b"\x18\0", cbor.data(PCR4))), "F2"
    )
    refuse("index-negative", "PCR minus 1", cbor.mapping(one, (cbor.integer(-1), cbor.data(PCR4))))
    refuse("index-text", "`0`", cbor.mapping(one, (cbor.text("1"), cbor.data(PCR4))))
    refuse("value-text", "hexadecimal", cbor.mapping((cbor.integer(0), cbor.text(PCR0.hex()))))
    refuse("array", "a list of registers", cbor.array(cbor.data(PCR0)))
    refuse("huge", "2^64 minus 1 registers", b"\xbb" + b"\xff" * 8, "F2")


def _certificates(room: Room) -> None:
    bundle = [cbor.data(one) for one in right().chain.bundle()]
    leaf = right().chain.leaf.encode()
    indefinite = cbor.indefinite(cbor.ARRAY, *bundle)
    room.accept(
        "cabundle-indefinite", "an array until a break", "P7", with_field("cabundle", indefinite)
    )
    _refuse(room, "cabundle", "huge", "2^64 minus 1 certificates", "F2", b"\x9b" + b"\xff" * 8)
    _refuse(
        room,
        "cabundle",
        "bytes",
        "one byte string",
        "P7",
        cbor.data(b"".join(right().chain.bundle())),
    )
    _refuse(
        room, "cabundle", "null-inside", "null among them", "P7", cbor.array(*bundle, cbor.NULL)
    )
    _refuse(
        room,
        "cabundle",
        "empty-inside",
        "an empty one among them",
        "P7",
        cbor.array(*bundle, cbor.data(b"")),
    )
    _refuse(
        room,
        "cabundle",
        "no-certificate",
        "one that is none",
        "X1",
        cbor.array(*bundle, cbor.data(b"0\0")),
    )
    _refuse(room, "certificate", "empty", "no byte", "P6", cbor.data(b""))
    _refuse(room, "certificate", "no-certificate", "64 zeros", "X1", cbor.data(bytes(64)))
    _refuse(room, "certificate", "cut", "the last byte is missing", "X1", cbor.data(leaf[:-1]))
    _refuse(room, "certificate", "trailing", "a byte behind its end", "X1", cbor.data(leaf + b"\0"))
    _refuse(
        room, "certificate", "pem", "as text", "X1", cbor.data(b"-----BEGIN CERTIFICATE-----\n")
    )
    _refuse(room, "certificate", "list", "in an array", "P6", cbor.array(cbor.data(leaf)))


def _sizes(room: Room) -> None:
    """What a long certificate says of itself is right and signed: its length alone is wrong."""
    for level, name, rule in (
        ("leaf", "certificate", "P6"),
        ("instance", "cabundle-instance", "P7"),
    ):
        as_long = in_link(level, grown_to(1024))
        room.accept(f"{name}-of-1024", "as long as it may be", rule, as_long)
        longer = in_link(level, grown_to(1025))
        twin = f"{name}-of-1024"
        room.refuse(f"{name}-of-1025", "a byte longer", rule, MALFORMED, longer, twin=twin)
    largest = _largest()
    says = f"everything at its bound; with {len(largest)} bytes no right document is much longer"
    room.accept("largest", says, "F1", largest)


def _largest() -> bytes:
    """As long as the rules allow, but for PCR0, which the policy names."""
    chain = certificates.chain()
    deeper(5)(chain)
    for name, link in chain.links.items():
        if name != "root":
            grown_to(1024)(link)
    document = documents.document(chain)
    document.fields |= {
        "module_id": cbor.text("i" * 256),
        "pcrs": registers(dict.fromkeys(range(32), bytes(64)) | {0: PCR0}),
        "cabundle": cbor.array(*(cbor.data(one) for one in chain.bundle()[1:])),
    } | dict.fromkeys(BYTES_OR_NULL, cbor.data(b"x" * 1024))
    return document.encode()
