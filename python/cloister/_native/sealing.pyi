"""Sealing of bundles for the platform, and opening them as an enclave does, for tests of it."""

from typing import Any, final

__all__ = ["BootKey", "object_scope", "seal_bundle", "verify_object_head"]

def seal_bundle(
    *,
    service_seed: bytes,
    recipient: bytes,
    enclave: str,
    deployment: str,
    version: int,
    challenge: bytes,
    pcr0: bytes,
    issued_at: int,
    not_after: int,
    app_keys: list[tuple[str, str, bytes]],
    api_keys: list[tuple[str, str, bytes, list[str], int | None]],
    env: list[tuple[str, bytes, bool]],
    objects: list[tuple[str, int, bytes]],
    sealing_secret: bytes | None,
    identity: tuple[str, str, str],
) -> bytes:
    """Encodes a bundle, signs it and seals it to a boot.

    Args:
        service_seed: Ed25519 seed of the service key, 32 bytes.
        recipient: X25519 public key of the boot, 32 bytes.
        enclave: Uuid.
        deployment: Id.
        version: Grows with every change.
        challenge: Of this boot, 32 bytes.
        pcr0: Of the image, 48 bytes.
        issued_at: Milliseconds since the Unix epoch.
        not_after: Likewise.
        app_keys: Id, curve (``P-256`` or ``secp256k1``) and private scalar, oldest first.
        api_keys: Id, name, SHA-256 of the key, scopes, end or ``None``.
        env: Name, value, whether it is a secret.
        objects: Name, version and SHA-256 of each sealed object that is the current one.
        sealing_secret: What the enclave makes the keys of sealed objects from, 32 bytes.
        identity: Team, app and name, for logs.

    Raises:
        ValueError: A field has another length, is over its limit, or the recipient's key is none.
    """

def object_scope(pcr0: bytes, pcr1: bytes, pcr2: bytes) -> str:
    """What the names of an image's sealed objects end with: 32 hexadecimal digits.

    Raises:
        ValueError: A register is not 48 bytes long.
    """

def verify_object_head(
    *,
    sealing_secret: bytes,
    image: tuple[bytes, bytes, bytes],
    enclave: str,
    name: str,
    version: int,
    sha256: bytes,
    proof: bytes,
) -> None:
    """Checks that an enclave of this image says that a sealed object has this head.

    Args:
        sealing_secret: The enclave's, 32 bytes.
        image: PCR0, PCR1 and PCR2, 48 bytes each.
        enclave: Uuid.
        name: The object's whole name.
        version: Version it was sealed as.
        sha256: Of the sealed object, 32 bytes.
        proof: What the enclave sent.

    Raises:
        ValueError: A field has another length, or the proof is not one for this head.
    """

@final
class BootKey:
    """An X25519 pair as an enclave makes it at each boot."""

    def __new__(cls) -> BootKey: ...
    @property
    def public(self) -> bytes:
        """The public half, 32 bytes."""

    def open_bundle(
        self,
        sealed: bytes,
        *,
        service_keys: list[bytes],
        enclave: str,
        challenge: bytes,
        pcr0: bytes,
        minimum_version: int,
        now_ms: int,
    ) -> dict[str, Any]:
        """Opens a bundle with every check that an enclave makes.

        Raises:
            ValueError: A check does not hold; the message says which.
        """
