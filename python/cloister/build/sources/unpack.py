"""Layers made ready: decompressed where they are compressed, and checked against their digests.

What is decompressed goes to a file without a name, so nothing of it stays behind. Reading, hashing
and decompressing happen outside of the interpreter lock, on as many threads as there are layers in
work.
"""

import bz2
import hashlib
import lzma
import os
import pathlib
import tempfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

import zstandard

from cloister.build.content import Backing, Slice
from cloister.build.sources.limits import Budget
from cloister.errors import MalformedImage, OutputError


class Unpacker:
    """Makes archives readable.

    Args:
        folder: Where files without a name are made; it needs room for the unpacked layers.
        budget: What may still be unpacked.
        advanced: Called with the bytes that were read, as they are.
    """

    def __init__(
        self, folder: pathlib.Path, budget: Budget, advanced: Callable[[int], None] = lambda _: None
    ) -> None:
        self._folder = folder
        self._budget = budget
        self._advanced = advanced

    def tar(self, archive: Slice, name: str, *, digest: str | None, unpacked: str | None) -> Slice:
        """An archive, decompressed and checked.

        Args:
            archive: As it is.
            name: How messages call it.
            digest: What the archive as it is must hash to: ``sha256:…``; ``None``: unchecked.
            unpacked: The same of what is in it.

        Raises:
            MalformedImage: A digest differs, the compression is damaged or one that is not known,
                or it unpacks to more than the limits.
            OutputError: There is no room for it.
        """
        compression = self.compression(archive)
        if compression is None:
            self.check(archive, name, {digest, unpacked} - {None})
            return archive
        return self._unpacked(archive, name, compression, digest, unpacked)

    def compression(self, archive: Slice) -> str | None:
        """What an archive is compressed with; ``None``: nothing."""
        start = b"".join(archive.part(0, min(archive.size, MAGIC_BYTES)).blocks())
        return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)

    def start(self, archive: Slice, name: str, size: int) -> bytes:
        """The first bytes of what is in an archive; fewer where it is short or damaged.

        Args:
            archive: As it is.
            name: How messages call it.
            size: How many bytes, :data:`BLOCK_BYTES` at most.
        """
        compression = self.compression(archive)
        blocks = archive.blocks()
        found = b""
        try:
            for block in blocks if compression is None else _READERS[compression](blocks, name):
                found += block[:size]
                if len(found) >= size:
                    break
        except MalformedImage:
            pass
        return found[:size]

    def check(self, archive: Slice, name: str, expected: set[str | None]) -> None:
        """Checks an archive that is not compressed.

        Raises:
            MalformedImage: A digest differs, or it is more than the limits.
        """
        self._budget.take_bytes(archive.size, name)
        self._hashed(archive, name, expected)

    def _hashed(self, archive: Slice, name: str, expected: set[str | None]) -> None:
        if not expected:
            return
        found = hashlib.sha256()
        # Each block waits for the interpreter, which the merge holds most of the time, so they are
        # large, yet fit into a processor's cache; memory that is asked for again and again would
        # cost as much as reading.
        buffer = memoryview(bytearray(min(HASHED_BYTES, archive.size)))
        at = 0
        while count := archive.fill(buffer, at):
            found.update(buffer[:count])
            self._advanced(count)
            at += count
        for digest in expected:
            _check(name, digest, found.hexdigest())

    def _unpacked(
        self,
        archive: Slice,
        name: str,
        compression: str,
        digest: str | None,
        unpacked: str | None,
    ) -> Slice:
        limits = self._budget.limits
        before, after = hashlib.sha256(), hashlib.sha256()
        read = written = 0

        def source() -> Iterator[bytes]:
            nonlocal read
            for block in archive.blocks():
                before.update(block)
                read += len(block)
                self._advanced(len(block))
                yield block

        try:
            with tempfile.TemporaryFile(dir=self._folder) as file:
                for block in _READERS[compression](source(), name):
                    written += len(block)
                    self._budget.take_bytes(len(block), name)
                    if written > max(limits.ratio_from, limits.ratio * read):
                        raise MalformedImage(
                            f"{name} unpacks to more than {limits.ratio} times its size:"
                            " a decompression bomb"
                        )
                    after.update(block)
                    file.write(block)
                file.flush()
                backing = Backing(os.dup(file.fileno()), name)
        except OSError as problem:
            raise OutputError(
                f"{name} cannot be unpacked in `{self._folder}`: {problem.strerror}"
            ) from problem
        _check(name, digest, before.hexdigest())
        _check(name, unpacked, after.hexdigest())
        return backing.whole()


def _check(name: str, expected: str | None, found: str) -> None:
    if expected is not None and expected != f"sha256:{found}":
        raise MalformedImage(
            f"{name} has the digest sha256:{found}, expected {expected}: it is damaged or another",
            hint="save or copy the image again",
        )


def _gzip(source: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Members of a gzip file, one after the other (RFC 1952)."""
    reader = zlib.decompressobj(GZIP_WINDOW)
    try:
        for block in source:
            left = block
            while left:
                if reader.eof:
                    if not left.strip(b"\0"):
                        break  # Padding, as tape drives want it.
                    reader = zlib.decompressobj(GZIP_WINDOW)
                yield reader.decompress(left, BLOCK_BYTES)
                left = reader.unused_data if reader.eof else reader.unconsumed_tail
        # A window may hold back what did not fit into a block.
        while not reader.eof and (rest := reader.decompress(b"", BLOCK_BYTES)):
            yield rest
    except zlib.error as problem:
        raise MalformedImage(f"{name} is damaged: {problem}") from None
    if not reader.eof:
        raise MalformedImage(f"{name} ends inside its gzip stream")


def _zstd(source: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Frames of a zstd file, one after the other (RFC 8878)."""
    reading = _Reading(source)
    factory = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
    try:
        with factory.stream_reader(
            cast("IO[bytes]", reading), read_across_frames=True, closefd=False
        ) as reader:
            while block := reader.read(BLOCK_BYTES):
                yield block
    except zstandard.ZstdError as problem:
        raise MalformedImage(f"{name} is damaged: {problem}") from None


def _other(source: Iterator[bytes], name: str, new: Callable[[], Any]) -> Iterator[bytes]:
    """Streams of bzip2 or xz, one after the other."""
    reader = new()
    try:
        for block in source:
            left = block
            while left or not (reader.eof or reader.needs_input):
                if reader.eof:
                    reader = new()
                yield reader.decompress(left, BLOCK_BYTES)
                left = reader.unused_data.strip(b"\0") if reader.eof else b""
    except (OSError, lzma.LZMAError, EOFError) as problem:
        raise MalformedImage(f"{name} is damaged: {problem}") from None
    if not reader.eof:
        raise MalformedImage(f"{name} ends inside its compressed stream")


def _bzip2(source: Iterator[bytes], name: str) -> Iterator[bytes]:
    return _other(source, name, bz2.BZ2Decompressor)


def _xz(source: Iterator[bytes], name: str) -> Iterator[bytes]:
    return _other(source, name, lambda: lzma.LZMADecompressor(memlimit=XZ_MEMORY))


class _Reading:
    """Blocks as a file, which is what the library reads."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source

    def read(self, _size: int = -1) -> bytes:
        return next(self._source, b"")


_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
}
_READERS: dict[str, Callable[[Iterator[bytes], str], Iterator[bytes]]] = {
    "gzip": _gzip,
    "zstd": _zstd,
    "bzip2": _bzip2,
    "xz": _xz,
}
MAGIC_BYTES = 6
BLOCK_BYTES = 1 << 20
HASHED_BYTES = 4 << 20
GZIP_WINDOW = 31  # the largest window, with a gzip header (zlib.h, inflateInit2)
XZ_MEMORY = 256 << 20  # what the highest preset, 9, takes is 65 MiB (xz(1))
ZSTD_WINDOW = 1 << 27  # what `zstd --decompress` takes without being asked (zstd(1), --memory)
