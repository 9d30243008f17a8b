"""Encryption for an app, and opening, in Rust. Every call leaves the interpreter while it works."""

from typing import final

__all__ = ["FileSealer", "Keyring", "encrypt_json", "encrypt_values"]

@final
class Keyring:
    """The private keys of an app, which open what was encrypted for it.

    What was derived with an ephemeral key is kept for some seconds, so that documents of one SDK
    cost one agreement. Threads may share it. The keys are wiped when it goes, and are not shown.

    Args:
        keys: Curve (``P-256`` or ``secp256k1``) and scalar (32 bytes, big-endian) of each, at most
            four a curve, oldest first.
        dangerous_accept_debug: Open what was made in the debug mode of an SDK, which says that it
            is worth nothing.

    Raises:
        KeyFileError: A key is not one of its curve, or there are too many.
    """

    def __new__(
        cls, keys: list[tuple[str, bytes]], *, dangerous_accept_debug: bool = False
    ) -> Keyring: ...
    @property
    def public_key(self) -> bytes | None:
        """The key to encrypt with: the newest on P-256, compressed; ``None`` when there is none."""

    def decrypt_values(self, tokens: list[str]) -> list[tuple[str, bytes] | None]:
        """Opens texts: type (``string``, ``number`` or ``boolean``) and clear text of each.

        ``None`` for a text that is not one ciphertext and nothing else.

        Raises:
            MalformedCiphertext: A ciphertext cannot be opened.
        """

    def decrypt_json(self, document: bytes) -> bytes:
        """Opens the ciphertexts in a JSON document; without one, it is returned itself.

        Raises:
            MalformedCiphertext: A ciphertext cannot be opened.
        """

    def decrypt_file(self, file: bytes) -> bytes:
        """Opens an encrypted file, whole.

        Raises:
            MalformedCiphertext: It is not one, is damaged, or cannot be opened.
        """

@final
class FileSealer:
    """An encrypted file that is made as it arrives.

    Raises:
        KeyFileError: The public key is not one.
    """

    def __new__(cls, public_key: bytes) -> FileSealer: ...
    @property
    def head(self) -> bytes:
        """What comes first."""

    def push(self, clear: bytes) -> bytes:
        """The ciphertext of the next piece.

        Raises:
            InputError: More than AES-GCM can seal.
            UsageError: The end was made already.
        """

    def finish(self) -> bytes:
        """What comes last: tag and checksum.

        Raises:
            UsageError: The end was made already.
        """

def encrypt_values(
    values: list[tuple[str, bytes]],
    public_key: bytes,
    *,
    version: str,
    role: str | None,
    unix_seconds: int,
) -> list[str]:
    """Encrypts values under one ephemeral key, each with an IV of its own.

    Args:
        values: Type (``string``, ``number`` or ``boolean``) and clear text of each.
        public_key: The app's key: a compressed P-256 point, 33 bytes.
        version: ``QkTC`` or ``Tk9D``.
        role: Data role, ``^[a-z0-9-]{1,20}$``; ``QkTC`` only.
        unix_seconds: The time that is written into the metadata.

    Raises:
        KeyFileError: The public key is not one.
        UsageError: Version, role or type is unknown.
        InputError: A number or boolean is none.
    """

def encrypt_json(
    document: bytes,
    public_key: bytes,
    *,
    version: str,
    role: str | None,
    unix_seconds: int,
) -> bytes:
    """Encrypts every string, number and boolean of a JSON document, as it is written.

    Raises:
        KeyFileError: The public key is not one.
        UsageError: Version or role is unknown.
        InputError: The document is not JSON, or nested deeper than 128 levels.
    """
