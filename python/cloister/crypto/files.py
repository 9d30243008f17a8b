"""Encrypted files, from one binary stream to another.

A file is encrypted in constant memory. It is decrypted in memory, because nothing of it is clear
before its tag was checked, and the tag comes last: so the length of a file has a limit.
"""

import io
from typing import Protocol

from cloister._native import crypto as _native
from cloister.crypto.keys import read_public_key
from cloister.errors import InputError, OutputError

MAX_FILE_BYTES = 25 << 20
"""Longest encrypted file that is read unless another limit is given, as ``[limits] max_file``."""


class Source(Protocol):
    """A binary stream that can be read, and that waits for what it gives."""

    def read(self, size: int, /) -> bytes | None:
        """At most ``size`` bytes, ``b""`` at the end; ``None`` when it would have to wait."""


class Target(Protocol):
    """A binary stream that can be written."""

    def write(self, data: bytes, /) -> object:
        """Takes all of ``data``, or says how many bytes it took; a raw stream's ``None`` is 0."""


def encrypt_file(source: Source, target: Target, public_key: bytes | str) -> None:
    """Encrypts a stream, piece by piece, in constant memory.

    What was written is an encrypted file when this returns: one that was cut short has no tag and
    no checksum, and nothing opens it.

    Args:
        source: The clear text, to its end.
        target: Where the file goes; it becomes 75 bytes longer than the clear text.
        public_key: As for :func:`cloister.crypto.encrypt`.

    Raises:
        KeyFileError: ``public_key`` is not one.
        InputError: The clear text is longer than 64 GiB, the most that AES-GCM can seal, or
            ``source`` is non-blocking and has nothing yet.
        OutputError: ``target`` takes nothing.
    """
    sealer = _native.FileSealer(read_public_key(public_key))
    _write(target, sealer.head)
    while piece := _read(source, _PIECE_BYTES):
        _write(target, sealer.push(piece))
    _write(target, sealer.finish())


def decrypt_file(
    source: Source,
    target: Target,
    keyring: _native.Keyring,
    *,
    max_bytes: int = MAX_FILE_BYTES,
) -> None:
    """Decrypts a file. Nothing is written before all of it was checked.

    Args:
        source: The encrypted file, to its end.
        target: Where the clear text goes.
        keyring: The app's private keys.
        max_bytes: Longest file that is read into memory.

    Raises:
        InputError: The file is longer than ``max_bytes``, or ``source`` is non-blocking and has
            nothing yet.
        MalformedCiphertext: It is not an encrypted file, is damaged, is of a version that is never
            opened (04, 05), or cannot be opened with any of the keys.
        OutputError: ``target`` takes nothing.
    """
    pieces, left = [], max_bytes
    while piece := _read(source, min(_PIECE_BYTES, left + 1)):
        left -= len(piece)
        if left < 0:
            raise InputError(f"the encrypted file is longer than {max_bytes} bytes")
        pieces.append(piece)
    _write(target, keyring.decrypt_file(b"".join(pieces)))


def _read(source: Source, size: int) -> bytes:
    """The next piece. Nothing yet is not the end: a part would look like the whole."""
    piece = source.read(size)
    if piece is None:
        raise InputError("the source would block: it is non-blocking, and has nothing yet")
    return piece


def _write(target: Target, data: bytes) -> None:
    """All of it: a raw stream may take less at a time."""
    left = memoryview(data)
    while left:
        taken = target.write(bytes(left) if len(left) < len(data) else data)
        if taken == 0 or (taken is None and isinstance(target, io.RawIOBase)):
            raise OutputError(f"the target takes nothing: {len(left)} bytes are left")
        left = left[taken:] if isinstance(taken, int) else left[len(left) :]


_PIECE_BYTES = 256 * 1024
