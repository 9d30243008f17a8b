"""What an enclave says of its sealed objects, made after wire.md §3 with Python's `cryptography`.

It is a second implementation: what the enclave computes in Rust and what the platform checks must
be what the page says.
"""

import hashlib
import hmac
import uuid
from collections.abc import Mapping

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def image_of(pcrs: Mapping[int, bytes]) -> bytes:
    """PCR0, PCR1 and PCR2, one after the other."""
    return b"".join(pcrs[index] for index in (0, 1, 2))


def name_of(kind: str, image: bytes) -> str:
    """The whole name of an object of an image."""
    scope = hashlib.sha256(b"cloister/object-scope/v1" + image).hexdigest()[:32]
    return f"{kind}.{scope}"


def proof_of(  # noqa: PLR0913 - the parts of what is proved
    *, secret: bytes, image: bytes, enclave: uuid.UUID, name: str, version: int, digest: bytes
) -> bytes:
    """Shows that an enclave of the image says that this is the current object of the name."""
    key = HKDF(SHA256(), 32, image, b"cloister/object-head/v1").derive(secret)
    said = enclave.bytes + name.encode() + version.to_bytes(8, "big") + digest
    return hmac.digest(key, said, "sha256")
