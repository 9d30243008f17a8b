"""The platform's own certificate: a small authority that ``cloister platform init`` makes.

Clients of the platform are few and the owner's: they are given the authority's certificate as a
file and trust nothing else. An owner with a certificate of a public authority names its files in
``platform.toml`` instead, and this module is not used.
"""

import datetime as dt
import ipaddress
import pathlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloister.errors import KeyFileError, OutputError
from cloister.replacing import replace


def make_authority(folder: pathlib.Path, *, now: dt.datetime) -> None:
    """Makes ``ca.pem`` and ``ca.key`` in ``folder``, unless they are there.

    Raises:
        OutputError: They cannot be written.
    """
    if (folder / CA_FILE).exists() and (folder / CA_KEY_FILE).exists():
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as problem:
        raise OutputError(f"cannot make `{folder}`: {problem.strerror}") from None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Cloister platform")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    replace(folder / CA_KEY_FILE, _private(key), mode=0o600)
    replace(folder / CA_FILE, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def ensure_certificate(folder: pathlib.Path, names: Sequence[str], *, now: dt.datetime) -> bool:
    """Makes ``server.pem`` and ``server.key``, unless they are there and good for a month yet.

    Args:
        folder: Where the authority is.
        names: DNS names and addresses that clients use.
        now: The time.

    Returns:
        Whether they were made.

    Raises:
        KeyFileError: The authority is missing or cannot be read.
        OutputError: They cannot be written.
    """
    if _is_good(folder / CERTIFICATE_FILE, names, now) and (folder / KEY_FILE).exists():
        return False
    try:
        issuer = x509.load_pem_x509_certificate((folder / CA_FILE).read_bytes())
        signer = serialization.load_pem_private_key((folder / CA_KEY_FILE).read_bytes(), None)
    except (OSError, ValueError):
        raise KeyFileError(
            f"the platform's authority in `{folder}` cannot be read",
            hint="`cloister platform init` makes it; clients need its new ca.pem then",
        ) from None
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise KeyFileError(f"the key of the platform's authority in `{folder}` is of another kind")
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(min(now + LIFE, issuer.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName([_name(one) for one in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    replace(folder / KEY_FILE, _private(key), mode=0o600)
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    replace(folder / CERTIFICATE_FILE, pem, mode=0o644)
    return True


def _is_good(path: pathlib.Path, names: Sequence[str], now: dt.datetime) -> bool:
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    is_in_time = found.not_valid_before_utc <= now < found.not_valid_after_utc - RENEW_BEFORE
    return is_in_time and list(extension.value) == [_name(one) for one in names]


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


CA_FILE = "ca.pem"
CA_KEY_FILE = "ca.key"
CERTIFICATE_FILE = "server.pem"
KEY_FILE = "server.key"
CA_LIFE = dt.timedelta(days=3650)
LIFE = dt.timedelta(days=397)  # the most that browsers took of public ones; renewed at a start
RENEW_BEFORE = dt.timedelta(days=30)
SKEW = dt.timedelta(hours=1)  # a client whose clock is behind
