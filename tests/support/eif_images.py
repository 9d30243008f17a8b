"""Small images and a signing pair for the tests of the format."""

import datetime as dt
import io
import pathlib
import struct
import tempfile
import zlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloister.build.eif import Kind, Payload, Pcrs, SigningPair, write

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
CERTIFICATE_SECONDS = dt.timedelta(days=30)


def image(
    ramdisks: list[bytes],
    *,
    kernel: bytes | None = None,
    cmdline: bytes | None = None,
    metadata: bytes | None = b"{}",
    signing: SigningPair | None = None,
) -> tuple[bytes, Pcrs]:
    """An EIF of these payloads, and its registers."""
    parts = [(Kind.KERNEL, kernel), (Kind.CMDLINE, cmdline), (Kind.METADATA, metadata)]
    parts += [(Kind.RAMDISK, ramdisk) for ramdisk in ramdisks]
    payloads = [Payload.of(kind, data) for kind, data in parts if data is not None]
    out = io.BytesIO()
    pcrs = write(out, payloads, memory=1 << 30, cpus=2, signing=signing)
    return out.getvalue(), pcrs


def with_checksum(file: bytes) -> bytes:
    """The same file with its checksum put right."""
    crc = zlib.crc32(file[548:], zlib.crc32(file[:544]))
    return file[:544] + struct.pack(">I", crc) + file[548:]


def pair_files(
    folder: pathlib.Path,
    *,
    curve: ec.EllipticCurve | None = None,
    not_before: dt.datetime = NOW - CERTIFICATE_SECONDS,
    not_after: dt.datetime = NOW + CERTIFICATE_SECONDS,
    scalar: int | None = None,
) -> tuple[pathlib.Path, pathlib.Path]:
    """A certificate and its key; the same ``scalar`` gives the same key."""
    curve = curve or ec.SECP384R1()
    key = ec.generate_private_key(curve) if scalar is None else ec.derive_private_key(scalar, curve)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .sign(key, hashes.SHA384())
    )
    folder.mkdir(parents=True, exist_ok=True)
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_path, key_path


def pair() -> SigningPair:
    """A signing pair that is valid at :data:`NOW`."""
    with tempfile.TemporaryDirectory() as folder:
        return SigningPair.load(*pair_files(pathlib.Path(folder), scalar=0xC0FFEE), now=NOW)
