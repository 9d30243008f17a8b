"""Makes a signing pair: a P-384 key and a certificate that it signed itself."""

import datetime as dt
import errno
import os
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloister.errors import OutputError

LIFETIME = dt.timedelta(days=5 * 365)
"""An image cannot be started after its certificate's end, and a new one changes PCR8."""


def make_signing_pair(  # noqa: PLR0913 - what a pair is made of
    certificate: pathlib.Path,
    key: pathlib.Path,
    *,
    name: str,
    now: dt.datetime,
    lifetime: dt.timedelta = LIFETIME,
    replace: bool = False,
) -> None:
    """Makes the pair.

    Args:
        certificate: Path of the certificate, PEM; readable by everybody whom the umask lets.
        key: Path of the key, PEM, mode 0600.
        name: Common name of the certificate.
        now: The certificate is valid from a day before it.
        lifetime: How long it is valid from then on.
        replace: Files that are there are replaced; otherwise they never are.

    Raises:
        OutputError: A file is there already, or cannot be written.
    """
    private = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + lifetime)
        .sign(private, hashes.SHA384())
    )
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    if not replace:
        # Before anything is written: half of a new pair beside half of an old one is no pair.
        for path in (key, certificate):
            if path.exists():
                raise OutputError(
                    f"`{path}` is there already", hint="name another file, or replace it: --force"
                )
    written: list[tuple[pathlib.Path, pathlib.Path]] = []
    try:
        for path, content, mode in (
            (key, pem, 0o600),
            (certificate, made.public_bytes(serialization.Encoding.PEM), 0o644),
        ):
            written.append((_beside(path, content, mode), path))
        # Only once both are on the disk: a key that is replaced cannot be had back.
        for temporary, path in written:
            _move(temporary, path)
    finally:
        for temporary, _ in written:
            temporary.unlink(missing_ok=True)


def _beside(path: pathlib.Path, content: bytes, mode: int) -> pathlib.Path:
    """Writes a file that is to take the place of ``path``."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                os.fsync(file.fileno())
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as problem:
        raise OutputError(f"cannot write `{path}`: {problem.strerror}") from problem
    return temporary


def _move(temporary: pathlib.Path, path: pathlib.Path) -> None:
    try:
        temporary.replace(path)
    except OSError as problem:
        raise OutputError(f"cannot write `{path}`: {problem.strerror}") from problem
