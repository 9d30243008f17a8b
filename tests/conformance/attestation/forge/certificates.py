"""A chain of five under a development root, right by itself and wrong where a case says so.

The keys are no secret: each is the SHA-384 of a sentence, so that the same cases come out of every
run, and nobody may ever trust the root. Signatures have the nonces of RFC 6979.
"""

import dataclasses
import hashlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.conformance.attestation.forge import der

NOW = 1_790_000_000_000
"""The moment of all forged documents: 2026-09-21T14:13:20Z."""
HOUR = 3_600_000
DAY = 24 * HOUR
ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffff"
    "c7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)
"""Of P-384's base point (FIPS 186-4, D.1.2.4)."""

ECDSA_SHA256 = der.sequence(der.oid("1.2.840.10045.4.3.2"))
ECDSA_SHA384 = der.sequence(der.oid("1.2.840.10045.4.3.3"))
BASIC_CONSTRAINTS, KEY_USAGE = "2.5.29.19", "2.5.29.15"
SUBJECT_KEY_ID, AUTHORITY_KEY_ID, NAME_CONSTRAINTS = "2.5.29.14", "2.5.29.35", "2.5.29.30"

DIGITAL_SIGNATURE, CONTENT_COMMITMENT, CERT_SIGN, CRL_SIGN = 0x80, 0x40, 0x04, 0x02

Key = ec.EllipticCurvePrivateKey


def key(label: str, curve: ec.EllipticCurve | None = None) -> Key:
    digest = hashlib.sha384(f"cloister conformance suite, no secret: {label}".encode()).digest()
    curve = curve or ec.SECP384R1()
    # Below 2^255, and so below the order of each of the curves.
    return ec.derive_private_key(int.from_bytes(digest[:31]) + 1, curve)


def point(of: Key, *, compressed: bool = False) -> bytes:
    form = PublicFormat.CompressedPoint if compressed else PublicFormat.UncompressedPoint
    return of.public_key().public_bytes(Encoding.X962, form)


def sign(by: Key, message: bytes, digest: hashes.HashAlgorithm | None = None) -> bytes:
    """In DER. Of the two signatures, whose ``s`` differ in sign, the lower."""
    algorithm = ec.ECDSA(digest or hashes.SHA384(), deterministic_signing=True)
    r, s = decode_dss_signature(by.sign(message, algorithm))
    if by.curve.name == "secp384r1":
        s = min(s, ORDER - s)
    return encode_dss_signature(r, s)


def fixed(signature: bytes, *, high: bool = False) -> bytes:
    """``r`` and ``s`` of 48 bytes each, as COSE has them."""
    r, s = decode_dss_signature(signature)
    return r.to_bytes(48) + (ORDER - s if high else s).to_bytes(48)


def key_info(of: Key) -> bytes:
    encoded: bytes = of.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def basic_constraints(*, ca: bool, path_length: int | None = None) -> bytes:
    parts = [der.tlv(der.BOOLEAN, b"\xff")] if ca else []
    if path_length is not None:
        parts.append(der.integer(path_length))
    return der.extension(BASIC_CONSTRAINTS, der.sequence(*parts), critical=True)


def key_usage(bits: int, *, critical: bool = True) -> bytes:
    unused = (bits & -bits).bit_length() - 1
    return der.extension(KEY_USAGE, der.bit_string(bytes([bits]), unused), critical=critical)


def key_ids(own: Key, issuer: Key) -> list[bytes]:
    def name(of: Key) -> bytes:
        return hashlib.sha256(point(of)).digest()[:20]

    authority = der.sequence(der.tlv(0x80, name(issuer)))
    return [
        der.extension(AUTHORITY_KEY_ID, authority),
        der.extension(SUBJECT_KEY_ID, der.tlv(der.OCTET_STRING, name(own))),
    ]


@dataclasses.dataclass
class Certificate:
    """Everything a certificate says, each part to be replaced by a wrong one."""

    key: Key
    signed_by: Key
    subject: bytes
    issuer: bytes
    begin: bytes
    end: bytes
    extensions: list[bytes] | None
    key_info: bytes
    version: bytes = der.tlv(0xA0, der.integer(2))
    serial: bytes = der.integer(0x5A5A)
    algorithm: bytes = ECDSA_SHA384
    outer_algorithm: bytes | None = None
    digest: hashes.HashAlgorithm | None = None
    between: bytes = b""
    """Stands before the extensions."""
    signature: bytes | None = None
    unused_bits: int = 0
    """Of the last byte of the signature, as its bit string says."""
    behind: bytes = b""
    """Stands behind the signature, inside."""

    def encode(self) -> bytes:
        """In DER, signed."""
        extensions = b""
        if self.extensions is not None:
            extensions = der.tlv(0xA3, der.sequence(*self.extensions))
        signed = der.sequence(
            self.version,
            self.serial,
            self.algorithm,
            self.issuer,
            der.sequence(self.begin, self.end),
            self.subject,
            self.key_info,
            self.between,
            extensions,
        )
        signature = self.signature or sign(self.signed_by, signed, self.digest)
        algorithm = self.outer_algorithm or self.algorithm
        return der.sequence(
            signed, algorithm, der.bit_string(signature, self.unused_bits), self.behind
        )


@dataclasses.dataclass
class Chain:
    """Root, regional, zonal, instance and leaf, by these names and in this order."""

    links: dict[str, Certificate]

    @property
    def root(self) -> bytes:
        """What a verifier is told to trust."""
        return self.links["root"].encode()

    @property
    def leaf(self) -> Certificate:
        """Whose key signs documents."""
        return self.links["leaf"]

    def bundle(self) -> list[bytes]:
        """All but the leaf, root first."""
        return [link.encode() for name, link in self.links.items() if name != "leaf"]


LEVELS: tuple[tuple[str, int | None, int, int], ...] = (
    ("regional", 2, DIGITAL_SIGNATURE | CERT_SIGN | CRL_SIGN, 20 * DAY),
    ("zonal", 1, DIGITAL_SIGNATURE | CERT_SIGN | CRL_SIGN, 6 * DAY),
    ("instance", 0, CERT_SIGN, DAY),
    ("leaf", None, DIGITAL_SIGNATURE | CONTENT_COMMITMENT, 3 * HOUR),
)
"""Path length, key usage and life of the genuine ones."""


def chain(family: str = "", *, root_common: str = "conformance.root.invalid") -> Chain:
    """A right chain; another ``family`` has other keys under the same names."""
    above = key(f"{family}root")
    issuer = der.name(root_common)
    links = {
        "root": Certificate(
            key=above,
            signed_by=above,
            subject=issuer,
            issuer=issuer,
            begin=der.time(NOW - 1000 * DAY),
            end=der.time(NOW + 9000 * DAY),
            extensions=[
                basic_constraints(ca=True),
                *key_ids(above, above)[1:],
                key_usage(DIGITAL_SIGNATURE | CERT_SIGN | CRL_SIGN),
            ],
            key_info=key_info(above),
        )
    }
    for level, path_length, usage, life in LEVELS:
        own = key(f"{family}{level}")
        subject = der.name(f"{level}.conformance.invalid")
        if level == "leaf":
            # As AWS writes it: no key identifiers, keyUsage not critical.
            extensions = [basic_constraints(ca=False), key_usage(usage, critical=False)]
        else:
            constraints = basic_constraints(ca=True, path_length=path_length)
            extensions = [constraints, *key_ids(own, above), key_usage(usage)]
        links[level] = Certificate(
            key=own,
            signed_by=above,
            subject=subject,
            issuer=issuer,
            begin=der.time(NOW - 60_000),
            end=der.time(NOW - 60_000 + life),
            extensions=extensions,
            key_info=key_info(own),
        )
        above, issuer = own, subject
    return Chain(links)
