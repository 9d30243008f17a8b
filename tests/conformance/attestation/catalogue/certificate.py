"""One certificate: its DER, fields, times and extensions (RFC 5280 4.1 and 4.2)."""

from collections.abc import Callable

from tests.conformance.attestation.catalogue.case import NOW, Room, right, with_chain
from tests.conformance.attestation.catalogue.changes import (
    BELOW,
    UNKNOWN,
    Change,
    adding,
    in_link,
    saying,
    without,
)
from tests.conformance.attestation.forge import cbor, certificates, der
from tests.conformance.attestation.forge.certificates import Chain, key

MALFORMED, UNTRUSTED = "MalformedDocument", "UntrustedChain"


def add_to(room: Room) -> None:
    """Everything that a single certificate can be wrong in."""
    _form(room)
    _times(room)
    _extensions(room)


def _form(room: Room) -> None:
    def leaf(name: str, says: str, rule: str, change: Change, code: str = MALFORMED) -> None:
        room.refuse(f"leaf-{name}", says, rule, code, in_link("leaf", change))

    leaf("version-1", "of version 1, with extensions", "X2", saying(version=b""))
    leaf("version-2", "of version 2", "X2", saying(version=der.tlv(0xA0, der.integer(1))))
    leaf("version-4", "of version 4", "X2", saying(version=der.tlv(0xA0, der.integer(3))))
    for size in (21, 32):
        serial = der.tlv(der.INTEGER, b"\x5a" * size)
        says = f"a serial number of {size} bytes, where RFC 5280 has 20"
        room.accept(f"leaf-serial-{size}", says, "X3", in_link("leaf", saying(serial=serial)))
    leaf("serial-33", "a serial number of 33 bytes", "X3", saying(serial=der.tlv(2, b"\x5a" * 33)))
    leaf("serial-none", "a serial number of no bytes", "X3", saying(serial=der.tlv(2)))
    for name, length in (("81", b"\x81\x02"), ("82", b"\x82\x00\x02")):
        says = "a length in more bytes than it needs"
        leaf(f"length-{name}", says, "X1", saying(serial=b"\x02" + length + b"\x5a\x5a"))
    leaf("serial-text", "a serial number that is a text", "X3", saying(serial=der.tlv(12, b"1")))
    leaf(
        "two-algorithms",
        "SHA-256 outside and SHA-384 inside",
        "X4",
        saying(outer_algorithm=certificates.ECDSA_SHA256),
    )
    leaf("issuer-empty", "an issuer without a name", "X5", saying(issuer=der.sequence()))
    leaf(
        "unique-id",
        "a unique identifier of the subject",
        "X7",
        saying(between=der.tlv(0x82, b"\0\1")),
    )
    leaf("extensions-empty", "a list of no extensions", "X7", saying(extensions=[]))
    leaf("behind", "an element behind the signature", "X1", saying(behind=der.tlv(der.NULL)))
    leaf("signature-bits", "a signature of a part of a byte", "X1", saying(unused_bits=3))
    room.refuse(
        "leaf-length-long",
        "its length in more bytes than it needs",
        "X1",
        MALFORMED,
        _with_leaf(lambda encoded: b"\x30\x83\0" + encoded[2:]),
    )
    room.refuse(
        "leaf-length-indefinite",
        "BER's indefinite length",
        "X1",
        MALFORMED,
        _with_leaf(lambda encoded: b"\x30\x80" + encoded[4:] + b"\0\0"),
    )


def _with_leaf(change: Callable[[bytes], bytes]) -> bytes:
    document = right()
    document.fields["certificate"] = cbor.data(change(document.chain.leaf.encode()))
    return document.encode()


def _times(room: Room) -> None:
    def refuse(name: str, says: str, change: Change) -> None:
        room.refuse(f"leaf-time-{name}", says, "X6", MALFORMED, in_link("leaf", change))

    late = NOW + 3 * certificates.HOUR
    for name, says, text in (
        ("no-seconds", "without seconds", b"2609211715Z"),
        ("zone", "with a time zone", b"260921171320+0000"),
        ("no-zone", "without Z", b"260921171320"),
        ("february-30", "a day that is not", b"270230000000Z"),
        ("hour-24", "an hour that is not", b"260921241320Z"),
        ("letters", "with a letter", b"26092117132oZ"),
        ("empty", "of no bytes", b""),
    ):
        refuse(name, says, saying(end=der.tlv(der.UTC_TIME, text)))
    refuse("generalized", "GeneralizedTime before 2050", saying(end=der.generalized(late)))
    fraction = der.tlv(der.GENERALIZED_TIME, b"20500101000000.5Z")
    refuse("fraction", "with a fraction of a second", saying(end=fraction))
    refuse("octets", "an octet string", saying(end=der.tlv(der.OCTET_STRING, b"260921171320Z")))
    refuse("reversed", "it ends before it begins", saying(begin=der.time(late), end=der.time(NOW)))
    far = saying(end=der.tlv(der.GENERALIZED_TIME, b"99991231235959Z"))
    room.accept("leaf-time-no-end", "RFC 5280's time without an end", "X6", in_link("leaf", far))


def _extensions(room: Room) -> None:
    null = der.tlv(der.NULL)
    permitted = der.sequence(der.tlv(0xA0, der.sequence(der.tlv(0x82, b"invalid"))))
    constraints = der.extension(certificates.NAME_CONSTRAINTS, permitted, critical=True)
    for level in BELOW:
        critical = adding(der.extension(UNKNOWN, null, critical=True))
        room.refuse(
            f"{level}-critical",
            "an unknown critical extension",
            "C7",
            UNTRUSTED,
            in_link(level, critical),
        )
        passed = adding(der.extension(UNKNOWN, null))
        room.accept(f"{level}-unknown", "an unknown extension", "C7", in_link(level, passed))
    room.refuse(
        "regional-name-constraints",
        "critical name constraints",
        "C7",
        UNTRUSTED,
        in_link("regional", adding(constraints)),
    )
    ids = certificates.key_ids(key("leaf"), key("instance"))
    room.accept(
        "leaf-key-ids",
        "key identifiers, which genuine ones lack",
        "X7",
        in_link("leaf", adding(*ids)),
    )
    wrong = certificates.key_ids(key("somebody"), key("else"))
    says = "key identifiers of other keys: they help to find a path, and decide nothing"
    room.accept("leaf-key-ids-wrong", says, "X7", in_link("leaf", adding(*wrong)))

    def no_ids(chain: Chain) -> None:
        for name in (certificates.SUBJECT_KEY_ID, certificates.AUTHORITY_KEY_ID):
            without(name)(chain.links["instance"])

    room.accept("instance-no-key-ids", "as some genuine ones", "X7", with_chain(no_ids))
    twice = der.extension(UNKNOWN, null)
    room.refuse(
        "leaf-extension-twice",
        "one extension twice",
        "X7",
        MALFORMED,
        in_link("leaf", adding(twice, twice)),
    )
    many = [der.extension(f"{UNKNOWN}.{number}", null) for number in range(15)]
    room.refuse(
        "leaf-extensions-17",
        "seventeen extensions",
        "X7",
        MALFORMED,
        in_link("leaf", adding(*many)),
    )
    room.accept("leaf-extensions-16", "sixteen", "X7", in_link("leaf", adding(*many[1:])))
    flag = der.sequence(
        der.oid(UNKNOWN), der.tlv(der.BOOLEAN, b"\1"), der.tlv(der.OCTET_STRING, null)
    )
    room.refuse("leaf-boolean-1", "a boolean of 1", "X7", MALFORMED, in_link("leaf", adding(flag)))
