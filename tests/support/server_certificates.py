"""A CA of a test, and TLS servers' certificates for ``localhost`` under it."""

import dataclasses
import pathlib
import ssl

from cloister.testing import authority


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
        self._authority = authority.Authority("CA of a test")
        self.file = folder / "authority.pem"
        self.file.write_bytes(self._authority.pem)

    def server(self, name: str) -> Pair:
        """A new key, and its certificate for ``localhost``."""
        issued = self._authority.identity(name)
        made = Pair(self._folder / f"{name}.pem", self._folder / f"{name}-key.pem")
        made.certificate.write_bytes(issued.certificate_pem)
        made.key.write_bytes(issued.key_pem)
        return made
