"""The development certificate authority: signs the TLS keys that enclaves of this machine make.

It stands where an ACME client stands in production, behind the same call, so that an enclave does
not know the difference. Its root is made on first use and trusted by nobody who was not told to;
what makes an enclave trustworthy is its attestation document, never this certificate.
"""

import datetime as dt
import ipaddress
import pathlib
import re
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.errors import InputError, KeyFileError
from cloister.replacing import replace
from cloister.tls_authority import TlsAuthority, private_key_pem

KEY_NAME = "tls-ca.key"
CERTIFICATE_NAME = "tls-ca.pem"
ROOT_LIFETIME = dt.timedelta(days=3650)
MAX_LIFETIME = dt.timedelta(days=90)
MAX_CSR_BYTES = 16 * 1024
_BACKDATED = dt.timedelta(minutes=5)  # clocks of client and host differ a little
_LOCAL_NAMES = frozenset({"localhost"})
_LOCAL_ADDRESSES = frozenset({ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")})
_DOMAIN = re.compile(r"(?=.{1,253}$)(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9-]{1,63}")


class DevelopmentCa:
    """A P-256 root in a directory, made on first use.

    Args:
        directory: Where ``tls-ca.key`` (0600) and ``tls-ca.pem`` are; made when absent, mode 0700.
        now: The time, for making the root.
        lifetime: Of what it signs, at most 90 days.

    Raises:
        KeyFileError: The files are there but do not belong together, or are open to others.
        InputError: ``lifetime`` is not between nothing and 90 days.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        *,
        now: dt.datetime,
        lifetime: dt.timedelta = MAX_LIFETIME,
    ) -> None:
        if not dt.timedelta(0) < lifetime <= MAX_LIFETIME:
            raise InputError(f"lifetime must be positive and at most {MAX_LIFETIME}")
        self._lifetime = lifetime
        self.certificate_path = directory / CERTIFICATE_NAME
        key_path = directory / KEY_NAME
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not key_path.exists():
            _make_root(key_path, self.certificate_path, now)
        self._authority = _load_root(key_path, self.certificate_path)

    @property
    def certificate_pem(self) -> str:
        """The root, for those who choose to trust it."""
        return _pem(self._authority.certificate)

    def issue(self, csr: bytes, domains: Sequence[str], *, now: dt.datetime) -> str:
        """Signs a server certificate for the names in ``csr``.

        Returns:
            Leaf and root in PEM.

        Raises:
            InputError: In this order: ``csr`` cannot be read; its signature does not verify; its
                key is not on P-256; it has no names, or one that is neither local nor among
                ``domains``; a domain is not a DNS name.
        """
        request = _read(csr)
        key = request.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(
            key.curve, ec.SECP256R1
        ):
            raise InputError("the certificate request's key is not on P-256")
        names = _checked_names(request, domains)
        leaf = self._authority.issue(
            key, names, not_before=now - _BACKDATED, not_after=now + self._lifetime
        )
        return _pem(leaf) + self.certificate_pem


def _read(csr: bytes) -> x509.CertificateSigningRequest:
    if len(csr) > MAX_CSR_BYTES:
        raise InputError(f"a certificate request is at most {MAX_CSR_BYTES} bytes long")
    try:
        request = x509.load_der_x509_csr(csr)
        verifies = request.is_signature_valid
    except (ValueError, TypeError, InvalidSignature) as problem:
        raise InputError("the certificate request is not PKCS#10 in DER") from problem
    if not verifies:
        raise InputError("the certificate request's signature does not verify")
    return request


def _checked_names(
    request: x509.CertificateSigningRequest, domains: Sequence[str]
) -> list[x509.GeneralName]:
    """The names asked for, each local or among ``domains``."""
    for domain in domains:
        if not _DOMAIN.fullmatch(domain):
            raise InputError("a domain of the order is not a DNS name")
    try:
        asked = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError, x509.DuplicateExtension) as problem:
        raise InputError("the certificate request has no subject alternative names") from problem
    allowed = _LOCAL_NAMES | set(domains)
    for name in asked:
        is_allowed = (isinstance(name, x509.DNSName) and name.value in allowed) or (
            isinstance(name, x509.IPAddress) and name.value in _LOCAL_ADDRESSES
        )
        if not is_allowed:
            raise InputError(
                "the certificate request has a name that is neither local nor of this order"
            )
    names = list(asked)
    if not names:
        raise InputError("the certificate request has no subject alternative names")
    return names


def _make_root(key_path: pathlib.Path, certificate_path: pathlib.Path, now: dt.datetime) -> None:
    root = TlsAuthority.new(
        "Cloister development root", not_before=now - _BACKDATED, not_after=now + ROOT_LIFETIME
    )
    replace(certificate_path, _pem(root.certificate).encode(), mode=0o644)
    replace(key_path, private_key_pem(root.key), mode=0o600)


def _load_root(key_path: pathlib.Path, certificate_path: pathlib.Path) -> TlsAuthority:
    if key_path.stat().st_mode & 0o077:
        raise KeyFileError(f"{key_path} can be read by others", hint=f"run `chmod 600 {key_path}`")
    again = f"remove {key_path} and {certificate_path}: a new root is made"
    try:
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        root = x509.load_pem_x509_certificate(certificate_path.read_bytes())
    except (OSError, ValueError) as problem:
        raise KeyFileError("the development root cannot be read", hint=again) from problem
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != root.public_key():
        raise KeyFileError(
            "the development root's key and certificate do not belong together", hint=again
        )
    return TlsAuthority(certificate=root, key=key)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
