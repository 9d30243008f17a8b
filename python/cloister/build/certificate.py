"""What a signing certificate says, and the register it gives: for people, offline.

It reads a file and decides nothing: whether a pair can sign is :class:`SigningPair`'s business.
"""

import dataclasses
import datetime as dt
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.build.eif.measure import register
from cloister.errors import KeyFileError, MissingInput


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SigningCertificate:
    """A certificate that was read.

    Args:
        subject: Distinguished name (RFC 4514).
        issuer: The same of who signed it.
        serial: Serial number, hexadecimal.
        not_before: Start of its validity.
        not_after: Its end; no enclave starts from an image that it signed after that.
        key: The kind of its public key: ``P-384``, ``P-256``, ``RSA-2048``.
        sha256: Fingerprint of its DER, 32 bytes.
        pcr8: The register of an image that it signs, 48 bytes.
    """

    subject: str
    issuer: str
    serial: str
    not_before: dt.datetime
    not_after: dt.datetime
    key: str
    sha256: bytes
    pcr8: bytes

    @classmethod
    def read(cls, path: pathlib.Path) -> "SigningCertificate":
        """Reads a PEM file.

        Raises:
            MissingInput: There is no such file, or it cannot be read.
            KeyFileError: It is no certificate in PEM.
        """
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            raise MissingInput(
                f"there is no certificate `{path}`", hint="`cloister cert new` makes a pair"
            ) from None
        except OSError as problem:
            raise MissingInput(f"`{path}` cannot be read: {problem.strerror}") from problem
        try:
            if len(raw) > MAX_BYTES:
                raise ValueError("too long")
            found = x509.load_pem_x509_certificate(raw)
            key = _key(found)
        except ValueError:
            raise KeyFileError(
                f"`{path}` is not a certificate in PEM",
                hint="it starts with -----BEGIN CERTIFICATE-----; a key is shown by no command",
            ) from None
        return cls(
            subject=found.subject.rfc4514_string(),
            issuer=found.issuer.rfc4514_string(),
            serial=f"{found.serial_number:x}",
            not_before=found.not_valid_before_utc,
            not_after=found.not_valid_after_utc,
            key=key,
            sha256=found.fingerprint(hashes.SHA256()),
            pcr8=register(found.public_bytes(serialization.Encoding.DER)),
        )

    def problems(self, now: dt.datetime) -> list[str]:
        """Why it cannot sign an image at this time; empty: it can."""
        found = []
        if self.key != SIGNING_KEY:
            found.append(f"its key is {self.key}, an EIF is signed with {SIGNING_KEY} (ES384)")
        if now < self.not_before:
            found.append(f"it is not valid before {self.not_before.isoformat()}")
        if now > self.not_after:
            found.append(f"it ended {self.not_after.isoformat()}")
        elif self.not_after - now < SOON:
            found.append(f"it ends in {(self.not_after - now).days} days, and its PCR8 with it")
        return found


def _key(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return {"secp384r1": "P-384", "secp256r1": "P-256", "secp521r1": "P-521"}.get(
            key.curve.name, key.curve.name
        )
    size = getattr(key, "key_size", None)
    kind = type(key).__name__.lstrip("_").removesuffix("PublicKey")
    return f"{kind}-{size}" if size else kind


SIGNING_KEY = "P-384"
SOON = dt.timedelta(days=30)
MAX_BYTES = 64 << 10
