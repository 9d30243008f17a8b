"""How much an image may be: what an archive may make this program read, hold and write."""

import dataclasses
import threading

from cloister.errors import MalformedImage


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one image, all of its layers together.

    Args:
        entries: Entries of its archives, those that later layers hide included.
        unpacked: Bytes of its layers, unpacked.
        ratio: A compressed layer that unpacks to more than this many times its length is a bomb,
            once it has passed ``ratio_from``. A layer of zeros alone reaches 1 030 (RFC 1951).
        ratio_from: Unpacked bytes up to which the ratio does not matter.
        layers: Layers; Docker's own limit is 127.
        metadata: Bytes of a manifest, an index or a configuration.
        header: Bytes of the heads of one entry of a tar archive.
    """

    entries: int = 1 << 20
    unpacked: int = 64 << 30
    ratio: int = 200
    ratio_from: int = 256 << 20
    layers: int = 256
    metadata: int = 4 << 20
    header: int = 1 << 20


class Budget:
    """What is left of the limits while an image is read; for several threads."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._entries = 0
        self._unpacked = 0
        self._lock = threading.Lock()

    def take_entry(self, archive: str) -> None:
        """One more entry.

        Raises:
            MalformedImage: It is one too many.
        """
        self._entries += 1
        if self._entries > self.limits.entries:
            raise MalformedImage(
                f"{archive}: the image has more than {self.limits.entries} entries"
            )

    def take_bytes(self, count: int, archive: str) -> None:
        """So many more bytes, unpacked.

        Raises:
            MalformedImage: It is too many.
        """
        with self._lock:
            self._unpacked += count
            unpacked = self._unpacked
        if unpacked > self.limits.unpacked:
            raise MalformedImage(
                f"{archive}: the image unpacks to more than {self.limits.unpacked >> 30} GiB"
            )
