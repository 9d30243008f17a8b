"""Encryption at rest: one master key file for each store, AES-256-GCM for each private value.

What is sealed here is as safe as the master key file beside the database: it keeps private halves
out of backups and copies of the database, not away from somebody who reads both files. A master key
in AWS KMS takes the same place later. Each ciphertext is bound to the store's trust class and to
the row and column it belongs to: a value cannot be moved to another row, nor a store be relabeled
from development to production. Rows themselves are not authenticated in a database; in a backup
they are (:meth:`Vault.authenticator`).

The format is ``0x01 ‖ nonce (12 bytes) ‖ ciphertext ‖ tag (16 bytes)``; random nonces are safe for
far more values than a store will hold (NIST SP 800-38D, 8.3: 2^32 under one key).
"""

import os
import pathlib
import secrets
import stat

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloister.errors import OutputError, StoreError
from cloister.platform.trust_class import TrustClass


class Vault:
    """Seals and opens the private values of one store.

    Args:
        key: The master key, 32 bytes.
        trust_class: Class of the store; part of what every ciphertext is bound to.
    """

    __slots__ = ("_aead", "_key", "_prefix")

    def __init__(self, key: bytes, trust_class: TrustClass) -> None:
        if len(key) != KEY_BYTES:
            raise StoreError(f"the master key is {len(key)} bytes long, expected {KEY_BYTES}")
        self._key = key
        self._aead = AESGCM(key)
        self._prefix = b"cloister/store/v1\0" + trust_class.value.encode() + b"\0"

    def seal(self, clear: bytes, *, place: str) -> bytes:
        """Encrypts ``clear`` for one place, named ``table/row/column``."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return VERSION + nonce + self._aead.encrypt(nonce, clear, self._prefix + place.encode())

    def open(self, sealed: bytes, *, place: str) -> bytes:
        """Decrypts what :meth:`seal` made for the same place.

        Raises:
            StoreError: Altered, sealed for another place or class, or under another master key.
        """
        if sealed[:1] != VERSION:
            raise StoreError(
                f"the sealed value at `{place}` has a version this program cannot read"
            )
        nonce = sealed[1 : 1 + NONCE_BYTES]
        try:
            return self._aead.decrypt(
                nonce, sealed[1 + NONCE_BYTES :], self._prefix + place.encode()
            )
        except (InvalidTag, ValueError):
            raise StoreError(
                f"the sealed value at `{place}` cannot be opened with this master key",
                hint="the master key file belongs to another store, or the database was altered",
            ) from None

    def authenticator(self, purpose: str) -> HMAC:
        """HMAC-SHA256 under a key for this purpose alone, derived from the master key (RFC 5869).

        For what leaves the store unsealed and must come back unaltered.
        """
        info = self._prefix + b"authenticator\0" + purpose.encode()
        return HMAC(HKDF(SHA256(), KEY_BYTES, None, info).derive(self._key), SHA256())


def create_master_key(path: pathlib.Path) -> bytes:
    """Makes a master key file, mode 0600, and returns the key.

    Raises:
        FileExistsError: There is one already: it is never overwritten.
    """
    key = secrets.token_bytes(KEY_BYTES)
    _write(path, key)
    return key


def write_master_key(path: pathlib.Path, key: bytes) -> None:
    """Makes a master key file, mode 0600, of a key that is known.

    Raises:
        OutputError: There is one already, or it cannot be written.
    """
    try:
        _write(path, key)
    except OSError as problem:
        raise OutputError(f"cannot write `{path}`: {problem.strerror}") from None


def read_master_key(path: pathlib.Path) -> bytes:
    """Reads a master key file.

    Raises:
        StoreError: Missing, readable by others than its owner, or of another length.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as problem:
        raise StoreError(
            f"the master key `{path}` cannot be read: {problem.strerror}",
            hint="without it the private halves of this store cannot be opened",
        ) from None
    with os.fdopen(descriptor, "rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise StoreError(
                f"the master key `{path}` has mode {mode:04o}, expected 0600",
                hint=f"chmod 600 '{path}', and replace the keys of this store if others read it",
            )
        key = file.read(KEY_BYTES + 1)
    if len(key) != KEY_BYTES:
        raise StoreError(f"the master key `{path}` is not {KEY_BYTES} bytes long")
    return key


def _write(path: pathlib.Path, key: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink()  # a part of a key is none, and would be in the way of the whole
        raise


KEY_BYTES = 32  # AES-256
NONCE_BYTES = 12  # the nonce length GCM is made for (NIST SP 800-38D, 5.2.1.1)
VERSION = b"\x01"
