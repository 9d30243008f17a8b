"""Encryption for an app, in Rust. Every call leaves the interpreter while it computes."""

__all__ = ["encrypt_json", "encrypt_values"]

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
