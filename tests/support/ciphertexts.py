"""A second reader of ``ev:`` strings, written from the specification over ``cryptography``.

It shares no code with what it checks. It opens the P-256 versions that are written (QkTC, Tk9D).
"""

import base64
import dataclasses
import hashlib
import json
import os
import pathlib
import zlib

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VECTORS = pathlib.Path(__file__).parents[1] / "vectors" / "ciphertext" / "vectors.json"
PREFIX = bytes.fromhex(json.loads(VECTORS.read_text())["kdf_prefix_hex"]["p256"])
KINDS = ("string", "number", "boolean")


@dataclasses.dataclass(frozen=True, slots=True)
class Value:
    """What a token held."""

    kind: str
    text: bytes
    metadata: bytes | None
    ephemeral: bytes
    iv: bytes


class App:
    """An app with one key."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.public = self.private.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
        )

    @property
    def scalar(self) -> bytes:
        """The private half, as :class:`cloister.crypto.Keyring` takes it."""
        return self.private.private_numbers().private_value.to_bytes(32, "big")

    def write_key_file(self, path: pathlib.Path) -> pathlib.Path:
        """The private half as a development app key, which the dev plane and ``decrypt`` take."""
        private = base64.b64encode(self.scalar).decode()
        path.write_text(json.dumps({"class": "development", "curve": "P-256", "private": private}))
        path.chmod(0o600)
        return path

    def seal_file(self, clear: bytes) -> bytes:
        """An encrypted file of version 03, made in one go from the specification."""
        ephemeral = ec.generate_private_key(ec.SECP256R1())
        point = ephemeral.public_key()
        compressed = point.public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
        )
        uncompressed = point.public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        shared = ephemeral.exchange(ec.ECDH(), self.private.public_key())
        key = hashlib.sha256(shared + b"\0\0\0\1" + PREFIX + uncompressed).digest()
        iv = os.urandom(12)
        head = b"%EVENC\x03" + (55).to_bytes(2, "little") + compressed + iv + b"\0"
        file = head + AESGCM(key).encrypt(iv, clear, self.public)
        return file + zlib.crc32(file).to_bytes(4, "little")

    def open_file(self, file: bytes) -> bytes:
        """Opens a file of version 03; ``InvalidTag`` when it is not for this app."""
        covered, checksum = file[:-4], file[-4:]
        assert zlib.crc32(covered).to_bytes(4, "little") == checksum
        assert covered[:9] == b"%EVENC\x03" + (55).to_bytes(2, "little")
        ephemeral, iv, flags = covered[9:42], covered[42:54], covered[54]
        assert flags == 0
        return AESGCM(self._key(ephemeral)).decrypt(iv, covered[55:], self.public)

    def _key(self, ephemeral: bytes) -> bytes:
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), ephemeral)
        uncompressed = point.public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        shared = self.private.exchange(ec.ECDH(), point)
        return hashlib.sha256(shared + b"\0\0\0\1" + PREFIX + uncompressed).digest()

    def open(self, token: str) -> Value:
        """Opens a token; ``cryptography.exceptions.InvalidTag`` when it is not for this app."""
        start, version, *kinds, iv64, key64, data64, end = token.split(":")
        assert (start, end) == ("ev", "$")
        kind = kinds[0] if kinds else "string"
        iv, ephemeral, data = (unpadded(part) for part in (iv64, key64, data64))
        key = self._key(ephemeral)
        aad = self.public
        if version == "QkTC":
            aad = bytes([KINDS.index(kind) << 4 | 1]) + ephemeral + self.public
        clear = AESGCM(key).decrypt(iv, data, aad)
        metadata = None
        if version == "QkTC":
            length = int.from_bytes(clear[:2], "little")
            metadata, clear = clear[2 : 2 + length], clear[2 + length :]
        return Value(kind, clear, metadata, ephemeral, iv)


def unpadded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
