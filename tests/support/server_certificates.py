"""A CA of a test, and TLS servers' certificates for ``localhost`` under it."""

import dataclasses
import datetime as dt
import ipaddress
import pathlib
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclasses.dataclass(frozen=True)
class Pair:
    """Files of one server.

    Args:
        certificate: PEM.
        key: PEM, PKCS #8.
    """

    certificate: pathlib.Path
    key: pathlib.Path

    def context(self) -> ssl.SSLContext:
        """A server's context with it, that agrees on HTTP/1.1."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.certificate, self.key)
        made.set_alpn_protocols(["http/1.1"])
        return made


class Authority:
    """A CA that a client trusts.

    Args:
        folder: For its files.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA of a test")])
        self.file = folder / "authority.pem"
        root = self._issued(self._name, self._key.public_key(), is_ca=True)
        self.file.write_bytes(root.public_bytes(serialization.Encoding.PEM))

    def server(self, name: str) -> Pair:
        """A new key, and its certificate for ``localhost``."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issued = self._issued(subject, key.public_key(), is_ca=False)
        made = Pair(self._folder / f"{name}.pem", self._folder / f"{name}-key.pem")
        made.certificate.write_bytes(issued.public_bytes(serialization.Encoding.PEM))
        made.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return made

    def _issued(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, is_ca: bool
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(hours=2))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if not is_ca:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())
