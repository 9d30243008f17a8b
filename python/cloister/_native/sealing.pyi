"""Sealing of bundles for the platform, and opening them as an enclave does, for tests of it."""

from typing import Any, final

__all__ = ["BootKey", "seal_bundle"]

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
        identity: Team, app and name, for logs.

    Raises:
        ValueError: A field has another length, is over its limit, or the recipient's key is none.
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
