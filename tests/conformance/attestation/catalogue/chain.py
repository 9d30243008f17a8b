"""From the leaf to the root (RFC 5280 6.1), one link wrong in one place."""

from collections.abc import Iterator

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from tests.conformance.attestation.catalogue import certificate
from tests.conformance.attestation.catalogue.case import Case, Room, right, with_chain
from tests.conformance.attestation.catalogue.changes import (
    BELOW,
    Change,
    deeper,
    in_link,
    saying,
    without,
)
from tests.conformance.attestation.forge import cbor, certificates, der, documents
from tests.conformance.attestation.forge.certificates import (
    CERT_SIGN,
    DIGITAL_SIGNATURE,
    Certificate,
    Chain,
    basic_constraints,
    key,
    key_info,
    key_usage,
)

MALFORMED, UNTRUSTED = "MalformedDocument", "UntrustedChain"
AUTHORITIES = ("regional", "zonal", "instance")


def cases() -> Iterator[Case]:
    room = Room("chain")
    certificate.add_to(room)
    _keys(room)
    _authority(room)
    _path(room)
    _order(room)
    return iter(room)


def _keys(room: Room) -> None:
    curves: tuple[tuple[str, ec.EllipticCurve], ...] = (
        ("p256", ec.SECP256R1()),
        ("p521", ec.SECP521R1()),
    )
    for name, curve in curves:
        other = key_info(key("leaf", curve))
        says = f"a key of {curve.name}"
        room.refuse(f"leaf-{name}", says, "C12", UNTRUSTED, in_link("leaf", saying(key_info=other)))
        other = key_info(key("zonal", curve))
        room.refuse(
            f"zonal-{name}", says, "C12", UNTRUSTED, in_link("zonal", saying(key_info=other))
        )
    algorithm = der.sequence(der.oid("1.2.840.10045.2.1"), der.oid("1.3.132.0.34"))
    point = certificates.point(key("leaf"))
    compressed = certificates.point(key("leaf"), compressed=True)

    def info(name: str, says: str, rule: str, code: str, value: bytes) -> None:
        room.refuse(f"leaf-key-{name}", says, rule, code, in_link("leaf", saying(key_info=value)))

    info(
        "compressed",
        "a compressed point",
        "C12",
        UNTRUSTED,
        der.sequence(algorithm, der.bit_string(compressed)),
    )
    off = point[:-1] + bytes([point[-1] ^ 1])
    info(
        "off-curve",
        "no point of the curve",
        "S1",
        "BadSignature",
        der.sequence(algorithm, der.bit_string(off)),
    )
    info(
        "short",
        "a byte too few",
        "C12",
        UNTRUSTED,
        der.sequence(algorithm, der.bit_string(point[:-1])),
    )
    hybrid = bytes([6 | point[-1] & 1]) + point[1:]
    info(
        "hybrid",
        "a hybrid point",
        "C12",
        UNTRUSTED,
        der.sequence(algorithm, der.bit_string(hybrid)),
    )
    dh = der.sequence(der.oid("1.3.132.1.12"), der.oid("1.3.132.0.34"))
    info(
        "ecdh",
        "a key for agreement alone",
        "C12",
        UNTRUSTED,
        der.sequence(dh, der.bit_string(point)),
    )
    for level in BELOW:
        weak = saying(algorithm=certificates.ECDSA_SHA256, digest=hashes.SHA256())
        room.refuse(
            f"{level}-sha256",
            "signed with SHA-256, and rightly so",
            "C5",
            UNTRUSTED,
            in_link(level, weak),
        )
        other_key = saying(signed_by=key("another"))
        room.refuse(
            f"{level}-signed-by-another",
            "by another key",
            "C8",
            UNTRUSTED,
            in_link(level, other_key),
        )

        def self_signed(certificate: Certificate) -> None:
            certificate.signed_by = certificate.key

        room.refuse(
            f"{level}-signed-by-itself",
            "by its own key",
            "C8",
            UNTRUSTED,
            in_link(level, self_signed),
        )
        named = saying(issuer=der.name("somebody.else.invalid"))
        room.refuse(
            f"{level}-other-issuer",
            "another name of its issuer",
            "C4",
            UNTRUSTED,
            in_link(level, named),
        )
    null = der.sequence(der.oid("1.2.840.10045.4.3.3"), der.tlv(der.NULL))
    room.refuse(
        "leaf-algorithm-null",
        "ES384 with parameters",
        "C5",
        UNTRUSTED,
        in_link("leaf", saying(algorithm=null)),
    )


def _authority(room: Room) -> None:
    usage, constraints = certificates.KEY_USAGE, certificates.BASIC_CONSTRAINTS
    for level in AUTHORITIES:
        refuse = {
            "not-ca": ("CA:FALSE", "C9", without(constraints, basic_constraints(ca=False))),
            "no-constraints": ("no basicConstraints", "C9", without(constraints)),
            "no-usage": ("no keyUsage", "C10", without(usage)),
            "signs-data": (
                "keyUsage without keyCertSign",
                "C10",
                without(usage, key_usage(DIGITAL_SIGNATURE)),
            ),
        }
        for name, (says, rule, change) in refuse.items():
            room.refuse(f"{level}-{name}", says, rule, UNTRUSTED, in_link(level, change))

    def leaf(name: str, says: str, rule: str, code: str, change: Change) -> None:
        room.refuse(f"leaf-{name}", says, rule, code, in_link("leaf", change))

    leaf(
        "ca",
        "a leaf that is a CA",
        "C13",
        UNTRUSTED,
        without(constraints, basic_constraints(ca=True)),
    )
    leaf("no-usage", "no keyUsage", "C14", UNTRUSTED, without(usage))
    leaf(
        "signs-certificates",
        "keyCertSign alone",
        "C14",
        UNTRUSTED,
        without(usage, key_usage(CERT_SIGN)),
    )
    room.accept(
        "leaf-no-constraints", "no basicConstraints", "C13", in_link("leaf", without(constraints))
    )
    length = basic_constraints(ca=False, path_length=0)
    leaf("path-length", "a path length and no CA", "X8", MALFORMED, without(constraints, length))
    for name, says, bits in (
        ("padding", "padding that would read as keyCertSign", b"\x07\x84"),
        ("zeros", "more zeros than needed", b"\x00\x80"),
        ("empty", "no bit", b"\x00"),
        ("unused-8", "eight bits unused", b"\x08\x80"),
        ("of-10", "a tenth bit", b"\x06\x80\x40"),
    ):
        value = der.extension(usage, der.tlv(der.BIT_STRING, bits))
        leaf(f"usage-{name}", f"keyUsage with {says}", "X9", MALFORMED, without(usage, value))


def _path(room: Room) -> None:
    constraints = certificates.BASIC_CONSTRAINTS

    def length(level: str, number: int | None) -> bytes:
        return in_link(level, without(constraints, basic_constraints(ca=True, path_length=number)))

    says = "its path length is used up"
    room.refuse("regional-length-0", says, "C11", UNTRUSTED, length("regional", 0))
    room.refuse("regional-length-1", says, "C11", UNTRUSTED, length("regional", 1))
    room.refuse("zonal-length-0", says, "C11", UNTRUSTED, length("zonal", 0))
    room.accept("regional-length-none", "no path length", "C11", length("regional", None))
    room.accept("zonal-length-9", "more than is left by the one above", "C11", length("zonal", 9))
    room.accept("instance-length-127", "the largest", "C11", length("instance", 127))
    room.refuse("instance-length-128", "two bytes of it", "X8", MALFORMED, length("instance", 128))
    for number, accepted in ((3, True), (2, False)):
        chain = certificates.chain()
        without(constraints, basic_constraints(ca=True, path_length=number))(chain.links["root"])
        document = document_around(chain)
        name, says = f"root-length-{number}", f"a root of path length {number}, for three below it"
        if accepted:
            room.accept(name, says, "C11", document, root=chain.root)
        else:
            room.refuse(name, says, "C11", UNTRUSTED, document, root=chain.root)


def document_around(chain: Chain) -> bytes:
    document = right()
    document.chain = chain
    document.fields["certificate"] = cbor.data(chain.leaf.encode())
    document.fields["cabundle"] = cbor.array(*(cbor.data(one) for one in chain.bundle()))
    return document.encode()


def _order(room: Room) -> None:
    chain = certificates.chain()
    root, regional, zonal, instance = chain.bundle()
    leaf = chain.leaf.encode()

    def bundle(*items: bytes, certificate: bytes = leaf) -> bytes:
        document = right()
        document.fields["cabundle"] = cbor.array(*(cbor.data(one) for one in items))
        document.fields["certificate"] = cbor.data(certificate)
        return document.encode()

    def refuse(name: str, says: str, rule: str, document: bytes) -> None:
        room.refuse(name, says, rule, UNTRUSTED, document)

    room.accept(
        "no-root", "the bundle without a copy of the root", "C2", bundle(regional, zonal, instance)
    )
    other = certificates.chain("another ")
    refuse(
        "other-root-copy",
        "another root in place of the copy",
        "C2",
        bundle(other.root, regional, zonal, instance),
    )
    refuse(
        "other-root",
        "a chain under another root of the same name",
        "C8",
        document_around(other),
    )
    named = certificates.chain("another ", root_common="aws.nitro-enclaves")
    refuse(
        "other-root-named",
        "a chain under a root with AWS's name",
        "C4",
        document_around(named),
    )
    refuse("reversed", "leaf first", "C4", bundle(instance, zonal, regional, root))
    refuse(
        "swapped", "two intermediates change places", "C4", bundle(root, zonal, regional, instance)
    )
    refuse(
        "leaf-for-instance",
        "leaf and instance certificate change places",
        "C4",
        bundle(root, regional, zonal, leaf, certificate=instance),
    )
    refuse(
        "instance-as-leaf",
        "the instance certificate signs",
        "C13",
        bundle(root, regional, zonal, certificate=instance),
    )
    refuse(
        "leaf-in-bundle",
        "the leaf is in the bundle too",
        "C9",
        bundle(root, regional, zonal, instance, leaf),
    )
    for name, items in (
        ("regional", (root, zonal, instance)),
        ("zonal", (root, regional, instance)),
        ("instance", (root, regional, zonal)),
        ("all", (root,)),
    ):
        refuse(f"without-{name}", "a link is missing", "C4", bundle(*items))
    refuse(
        "root-twice", "the root below itself", "C3", bundle(root, root, regional, zonal, instance)
    )
    refuse(
        "regional-twice",
        "one certificate twice",
        "C3",
        bundle(root, regional, regional, zonal, instance),
    )
    # The root's key and name under another serial number: a link like any other, once.
    renewed = certificates.chain().links["root"]
    renewed.serial = der.integer(7)
    again = renewed.encode()
    room.accept(
        "self-issued",
        "a certificate of the root for itself",
        "C3",
        bundle(root, again, regional, zonal, instance),
    )
    refuse(
        "self-issued-twice",
        "the same twice",
        "C3",
        bundle(root, again, again, regional, zonal, instance),
    )
    refuse(
        "root-below",
        "the root below what it issued for itself",
        "C3",
        bundle(again, root, regional, zonal, instance),
    )
    refuse(
        "extra",
        "a certificate behind the chain",
        "C4",
        bundle(root, regional, zonal, instance, other.bundle()[1]),
    )

    def flat(chain: Chain) -> None:
        chain.links = {name: chain.links[name] for name in ("root", "leaf")}
        chain.leaf.issuer = chain.links["root"].subject
        chain.leaf.signed_by = chain.links["root"].key

    says = "a leaf that the root itself issued: the rules hold, whatever the number of links"
    room.accept("of-two", says, "C2", with_chain(flat))
    alone = certificates.chain()
    flat(alone)
    document = documents.document(alone)
    document.fields["cabundle"] = cbor.array()
    says = "the same without the bundle's copy of the root, which leaves no certificate there"
    room.refuse("of-one", says, "P7", MALFORMED, document.encode(), twin="of-two")
    room.accept("of-nine", "eight certificates in the bundle", "P7", with_chain(deeper(4)))
    says = "nine certificates in the bundle, rightly signed one by the other"
    room.refuse("of-ten", says, "P7", MALFORMED, with_chain(deeper(5)), twin="of-nine")
    signed = right()
    signed.signer = key("instance")
    room.refuse(
        "signed-by-instance", "by the key above the leaf's", "S1", "BadSignature", signed.encode()
    )
