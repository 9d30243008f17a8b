"""The platform's own certificate: a small authority that ``cloister platform init`` makes.

Clients of the platform are few and the owner's: they are given the authority's certificate as a
file and trust nothing else. An owner with a certificate of a public authority names its files in
``platform.toml`` instead, and this module is not used.
"""

import datetime as dt
import pathlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.errors import KeyFileError, OutputError
from cloister.platform.server.names import general_name
from cloister.replacing import replace
from cloister.tls_authority import TlsAuthority, private_key_pem


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
    made = TlsAuthority.new("Cloister platform", not_before=now - SKEW, not_after=now + CA_LIFE)
    replace(folder / CA_KEY_FILE, private_key_pem(made.key), mode=0o600)
    pem = made.certificate.public_bytes(serialization.Encoding.PEM)
    replace(folder / CA_FILE, pem, mode=0o644)


def ensure_certificate(folder: pathlib.Path, names: Sequence[str], *, now: dt.datetime) -> bool:
    """Makes ``server.pem`` and ``server.key``, unless they are there and good for a month yet.

    Args:
        folder: Where the authority is.
        names: DNS names and addresses that clients use.
        now: The time.

    Returns:
        Whether they were made.

    Raises:
        ConfigError: A name is neither an address nor a DNS name.
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
    certificate = TlsAuthority(certificate=issuer, key=signer).issue(
        key.public_key(),
        [general_name(one) for one in names],
        name=names[0][:64],
        not_before=now - SKEW,
        not_after=now + LIFE,
    )
    replace(folder / KEY_FILE, private_key_pem(key), mode=0o600)
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
    return is_in_time and list(extension.value) == [general_name(one) for one in names]


CA_FILE = "ca.pem"
CA_KEY_FILE = "ca.key"
CERTIFICATE_FILE = "server.pem"
KEY_FILE = "server.key"
CA_LIFE = dt.timedelta(days=3650)
LIFE = dt.timedelta(days=397)  # the most that browsers took of public ones; renewed at a start
RENEW_BEFORE = dt.timedelta(days=30)
SKEW = dt.timedelta(hours=1)  # a client whose clock is behind
