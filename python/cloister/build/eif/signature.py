"""The signature section: a COSE signature over PCR0, and the certificate that made it.

One CBOR array of one map, keys in this order: `signing_certificate` (PEM) and `signature`
(COSE_Sign1), both as arrays of small integers, as aws-nitro-enclaves-image-format writes them
(``src/utils/eif_signer.rs``). ES384 with RFC 6979 nonces, so a signed image is reproducible.
Whether the certificate is anyone's to trust is not asked: PCR8 is its hash, and clients pin that.
"""

import dataclasses
import datetime as dt
import pathlib
import warnings

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from cloister.build.eif import small_cbor as cbor
from cloister.errors import KeyFileError, MalformedImage, MissingInput


@dataclasses.dataclass(frozen=True, slots=True)
class SigningPair:
    """A certificate and its private key, which belong together.

    Args:
        certificate_pem: The certificate, as it goes into the image.
        certificate: The same, read.
    """

    certificate_pem: bytes
    certificate: x509.Certificate
    _key: ec.EllipticCurvePrivateKey = dataclasses.field(repr=False)

    @classmethod
    def load(
        cls, certificate: pathlib.Path, key: pathlib.Path, *, now: dt.datetime
    ) -> "SigningPair":
        """Reads and checks a pair.

        Args:
            certificate: PEM file.
            key: PEM file, not encrypted.
            now: The time at which the certificate must be valid.

        Raises:
            MissingInput: A file does not exist.
            KeyFileError: A file is not PEM, is not P-384, the two do not match, or the certificate
                is not in date.
        """
        text = _read(certificate, "signing certificate")
        try:
            parsed, public = _certificate(text)
        except ValueError:
            raise KeyFileError(
                f"`{certificate}` is not a certificate in PEM",
                hint="it starts with -----BEGIN CERTIFICATE-----; `cloister cert new` makes one",
            ) from None
        try:
            private = serialization.load_pem_private_key(_read(key, "signing key"), None)
        except TypeError:
            raise KeyFileError(
                f"`{key}` is encrypted with a password",
                hint="`openssl pkey -in KEY -out NEW` writes it without",
            ) from None
        except (ValueError, UnsupportedAlgorithm):
            raise KeyFileError(
                f"`{key}` is not a private key in PEM", hint="`cloister cert new` makes a pair"
            ) from None
        for path, found in ((certificate, public), (key, private.public_key())):
            _check_curve(path, found)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise KeyFileError(f"`{key}` is not an elliptic-curve key")
        if private.public_key() != public:
            raise KeyFileError(
                f"`{key}` is not the key of `{certificate}`",
                hint="`certPath` and `keyPath` in [signing] must be of one pair",
            )
        _check_dates(certificate, parsed, now)
        # One spelling of the file: line ends and text around the block do not change PCRs anyway,
        # but they would change the image.
        pem = parsed.public_bytes(serialization.Encoding.PEM)
        return cls(pem, parsed, private)

    @property
    def certificate_der(self) -> bytes:
        """What PCR8 is the hash of."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def sign(self, pcr0: bytes) -> bytes:
        """The signature section of an image with this PCR0."""
        payload = (
            cbor.head(cbor.MAP, 2)
            + cbor.text("register_index")
            + cbor.head(cbor.UNSIGNED, 0)
            + cbor.text("register_value")
            + cbor.small_integers(pcr0)
        )
        algorithm = ec.ECDSA(hashes.SHA384(), deterministic_signing=True)
        r, s = decode_dss_signature(self._key.sign(_to_be_signed(PROTECTED, payload), algorithm))
        raw = r.to_bytes(SCALAR_BYTES, "big") + s.to_bytes(SCALAR_BYTES, "big")
        message = (
            cbor.head(cbor.ARRAY, 4)
            + cbor.byte_string(PROTECTED)
            + cbor.head(cbor.MAP, 0)
            + cbor.byte_string(payload)
            + cbor.byte_string(raw)
        )
        return (
            cbor.head(cbor.ARRAY, 1)
            + cbor.head(cbor.MAP, 2)
            + cbor.text("signing_certificate")
            + cbor.small_integers(self.certificate_pem)
            + cbor.text("signature")
            + cbor.small_integers(message)
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedSignature:
    """What a good signature section shows.

    Args:
        certificate: The signing certificate.
    """

    certificate: x509.Certificate

    @property
    def certificate_der(self) -> bytes:
        """What PCR8 is the hash of."""
        return self.certificate.public_bytes(serialization.Encoding.DER)


def verify(section: bytes, pcr0: bytes) -> VerifiedSignature:
    """Checks a signature section as the hypervisor does before it fills PCR8.

    Args:
        section: The payload of the section.
        pcr0: PCR0 of the image that it is in.

    Raises:
        MalformedImage: In the order: form, certificate, algorithm, payload, signature.
    """
    if len(section) > MAX_SECTION_BYTES:
        raise MalformedImage(f"{WHAT}: {len(section)} bytes, the limit is {MAX_SECTION_BYTES}")
    pem, message = _read_section(section)
    try:
        certificate, public = _certificate(pem)
    except ValueError:
        raise MalformedImage(f"{WHAT}: `signing_certificate` is not a certificate in PEM") from None
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != CURVE:
        raise MalformedImage(f"{WHAT}: `signing_certificate` has no P-384 key")
    protected, payload, raw = _read_message(message)
    if protected != PROTECTED:
        raise MalformedImage(f"{WHAT}: the algorithm is not ES384")
    if _read_payload(payload) != pcr0:
        raise MalformedImage(
            "the image's signature is for another image: it signs another PCR0",
            hint="the image was changed after it was signed",
        )
    half = SCALAR_BYTES
    if len(raw) != 2 * half:
        raise MalformedImage(f"{WHAT}: the signature has {len(raw)} bytes, expected {2 * half}")
    der = encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
    try:
        public.verify(der, _to_be_signed(protected, payload), ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise MalformedImage(
            "the image's signature was not made by its signing certificate"
        ) from None
    return VerifiedSignature(certificate=certificate)


def certificate_in(section: bytes) -> bytes:
    """DER of the certificate in a section, whatever its signature is worth.

    Raises:
        MalformedImage: The section or the certificate cannot be read.
    """
    if len(section) > MAX_SECTION_BYTES:
        raise MalformedImage(f"{WHAT}: {len(section)} bytes, the limit is {MAX_SECTION_BYTES}")
    pem, _ = _read_section(section)
    try:
        certificate, _ = _certificate(pem)
    except ValueError:
        raise MalformedImage(f"{WHAT}: `signing_certificate` is not a certificate in PEM") from None
    return certificate.public_bytes(serialization.Encoding.DER)


def _certificate(pem: bytes) -> tuple[x509.Certificate, object]:
    """A certificate and its key, once all that is shown of it could be read.

    Raises:
        ValueError: A part of it cannot be read.
    """
    try:
        # A serial number that is not positive is worth a warning to a CA, not to us.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            certificate = x509.load_pem_x509_certificate(pem)
            certificate.subject.rfc4514_string()
            certificate.issuer.rfc4514_string()
            _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
            return certificate, certificate.public_key()
    except (UnsupportedAlgorithm, x509.InvalidVersion) as problem:
        raise ValueError(str(problem)) from problem


def _read_section(section: bytes) -> tuple[bytes, bytes]:
    reader = cbor.Reader(section, WHAT)
    if reader.expect(cbor.ARRAY) != 1 or reader.expect(cbor.MAP) != 2:  # noqa: PLR2004 - two keys
        raise MalformedImage(f"{WHAT}: expected one signature of two keys")
    values = {}
    for _ in range(2):
        key = reader.text()
        if key not in ("signing_certificate", "signature") or key in values:
            raise MalformedImage(f"{WHAT}: unknown or repeated key {key[:40]!r}")
        values[key] = reader.small_integers()
    reader.end()
    return values["signing_certificate"], values["signature"]


def _read_message(message: bytes) -> tuple[bytes, bytes, bytes]:
    reader = cbor.Reader(message, f"{WHAT}, COSE_Sign1")
    if reader.expect(cbor.ARRAY) != 4:  # noqa: PLR2004 - RFC 9052, section 4.2
        raise MalformedImage(f"{WHAT}: a COSE_Sign1 has four parts")
    protected = reader.byte_string()
    if reader.expect(cbor.MAP):
        raise MalformedImage(f"{WHAT}: an unprotected header is not expected")
    payload, raw = reader.byte_string(), reader.byte_string()
    reader.end()
    return protected, payload, raw


def _read_payload(payload: bytes) -> bytes:
    reader = cbor.Reader(payload, f"{WHAT}, payload")
    if reader.expect(cbor.MAP) != 2:  # noqa: PLR2004 - two keys
        raise MalformedImage(f"{WHAT}: the payload has two keys")
    index, value = None, None
    for _ in range(2):
        key = reader.text()
        if key == "register_index" and index is None:
            index = reader.expect(cbor.UNSIGNED)
        elif key == "register_value" and value is None:
            value = reader.small_integers()
        else:
            raise MalformedImage(f"{WHAT}: unknown or repeated key {key[:40]!r}")
    reader.end()
    if index != 0 or value is None:
        raise MalformedImage(f"{WHAT}: it signs PCR{index}, expected PCR0")
    return value


def _to_be_signed(protected: bytes, payload: bytes) -> bytes:
    """``Sig_structure`` of RFC 9052, section 4.4."""
    return (
        cbor.head(cbor.ARRAY, 4)
        + cbor.text("Signature1")
        + cbor.byte_string(protected)
        + cbor.byte_string(b"")
        + cbor.byte_string(payload)
    )


def _read(path: pathlib.Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise MissingInput(
            f"the {what} `{path}` does not exist",
            hint="`certPath` and `keyPath` in [signing] are relative to enclave.toml",
        ) from None
    except OSError as problem:
        raise KeyFileError(f"the {what} `{path}` cannot be read: {problem.strerror}") from problem
    if len(text) > MAX_FILE_BYTES:
        raise KeyFileError(f"the {what} `{path}` is longer than {MAX_FILE_BYTES} bytes")
    return text


def _check_curve(path: pathlib.Path, key: object) -> None:
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == CURVE:
        return
    found = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__
    raise KeyFileError(
        f"`{path}` has a key of the kind {found.strip('_')}, expected P-384 (secp384r1)",
        hint="images are signed with ES384 alone; `cloister cert new` makes a pair",
    )


def _check_dates(path: pathlib.Path, certificate: x509.Certificate, now: dt.datetime) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end:
        raise KeyFileError(
            f"`{path}` expired on {end:%Y-%m-%d}",
            hint="make a new pair; PCR8 changes with the certificate, so tell your clients",
        )
    if now < begin:
        raise KeyFileError(f"`{path}` is valid from {begin:%Y-%m-%d %H:%M} UTC only, now is {now}")


WHAT = "EIF signature section"
PROTECTED = bytes.fromhex("a1013822")
"""``{1: -35}``: the algorithm is ES384 (RFC 9053, section 2.1)."""
CURVE = "secp384r1"
SCALAR_BYTES = 48
MAX_SECTION_BYTES = 32 << 10
MAX_FILE_BYTES = 1 << 20
