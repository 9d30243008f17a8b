"""Where a simulated enclave is: a port that nobody else is given, and a folder of files."""

import base64
import json
import pathlib
import socket
import tempfile

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.testing.authority import Identity


class Place:
    """A port of the loopback and a folder for this user alone, until :meth:`close`.

    Args:
        ca_pem: The CA that signs TLS certificates.
        nsm_root_pem: The root of documents.
        app_key: The file of the app's key.
    """

    def __init__(self, *, ca_pem: bytes, nsm_root_pem: str, app_key: bytes) -> None:
        self._files = tempfile.TemporaryDirectory(prefix="cloister-testing-")
        self._folder = pathlib.Path(self._files.name)
        # Bound and never listening: connections are refused while the enclave is down, and nobody
        # else is given the port.
        self._seat = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._seat.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._seat.bind(("127.0.0.1", 0))
        self.port: int = self._seat.getsockname()[1]
        self.ca_file = self._folder / "ca.pem"
        self.nsm_root_file = self._folder / "nsm-root.pem"
        self.app_key_file = self._folder / "app-key.json"
        self.ca_file.write_bytes(ca_pem)
        self.nsm_root_file.write_text(nsm_root_pem, encoding="ascii")
        self.app_key_file.write_bytes(app_key)

    def write(self, identity: Identity) -> tuple[pathlib.Path, pathlib.Path]:
        """Writes a certificate and its key, in place of the last ones; returns the two files."""
        certificate, key = self._folder / "tls.pem", self._folder / "tls.key"
        certificate.write_bytes(identity.certificate_pem)
        key.write_bytes(identity.key_pem)
        return certificate, key

    def close(self) -> None:
        """Gives the port back and removes the files."""
        self._seat.close()
        self._files.cleanup()


class AppKey:
    """The key of an app that exists in a test alone."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public(self) -> bytes:
        """What clients encrypt to: compressed (SEC 1), 33 bytes."""
        return self._key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
        )

    def as_file(self) -> bytes:
        """The private half as the development plane reads it."""
        scalar = self._key.private_numbers().private_value.to_bytes(32)
        key = {
            "class": "development",
            "curve": "P-256",
            "private": base64.b64encode(scalar).decode(),
        }
        return json.dumps(key).encode()
