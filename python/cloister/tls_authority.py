"""A small certificate authority: a root, and the certificates of TLS servers under it.

It signs what it is told. Which names somebody may have, how long a certificate lives and where keys
are kept is decided where it is used: in :mod:`cloister.host.certificates` for enclaves of this
machine, in :mod:`cloister.platform.server.tls` for the platform itself, in
:mod:`cloister.testing.authority` for tests. It reads no clock and no file.

The form is that of RFC 5280, section 4.2.
"""

import dataclasses
import datetime as dt
from collections.abc import Iterable
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TlsAuthority:
    """A root and its key, which belong together.

    Args:
        certificate: The root.
        key: Its key.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = dataclasses.field(repr=False)

    @classmethod
    def new(cls, name: str, *, not_before: dt.datetime, not_after: dt.datetime) -> Self:
        """A root with a new key on P-256, for servers alone: no authority can be below it.

        Args:
            name: Its common name, at most 64 characters.
            not_before: First moment of its validity.
            not_after: Last moment of it.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _common_name(name)
        builder = _builder(subject, subject, key.public_key(), is_ca=True)
        builder = builder.not_valid_before(not_before).not_valid_after(not_after)
        return cls(certificate=builder.sign(key, hashes.SHA256()), key=key)

    def issue(
        self,
        key: ec.EllipticCurvePublicKey,
        names: Iterable[x509.GeneralName],
        *,
        name: str | None = None,
        not_before: dt.datetime,
        not_after: dt.datetime,
    ) -> x509.Certificate:
        """Signs the certificate of a server.

        Args:
            key: The server's.
            names: What clients call it. They are critical where there is no common name (RFC 5280,
                section 4.2.1.6).
            name: Its common name, at most 64 characters, which no client looks at.
            not_before: First moment of its validity.
            not_after: Last moment of it, or that of the root's when it comes first.
        """
        subject = x509.Name([]) if name is None else _common_name(name)
        return (
            _builder(subject, self.certificate.subject, key, is_ca=False)
            .not_valid_before(not_before)
            .not_valid_after(min(not_after, self.certificate.not_valid_after_utc))
            .add_extension(x509.SubjectAlternativeName(names), critical=name is None)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(self._key_id(), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def _key_id(self) -> x509.AuthorityKeyIdentifier:
        """As the root calls its key (RFC 5280, section 4.2.1.1), whoever made it."""
        try:
            found = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found.value)


def private_key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A key as PKCS #8 in PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, is_ca: bool
) -> x509.CertificateBuilder:
    """What root and leaf have in common."""
    usage = x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    constraints = x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .add_extension(constraints, critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
