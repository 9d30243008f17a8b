"""From a saved image to its files and settings: found, checked, merged."""

import concurrent.futures
import functools
import hashlib
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from cloister.build.built_image import BuiltImage
from cloister.build.content import Backing, Slice
from cloister.build.sources import saved, settings
from cloister.build.sources.archive import walk
from cloister.build.sources.blobs import ArchiveBlobs, Blobs, FolderBlobs
from cloister.build.sources.documents import Document
from cloister.build.sources.limits import Budget, Limits
from cloister.build.sources.merge import Merging
from cloister.build.sources.saved import Saved, Wanted
from cloister.build.sources.stub import remove_stubs
from cloister.build.sources.unpack import Unpacker
from cloister.errors import MalformedImage, MissingInput, UsageError


class SavedImage:
    """A saved image whose settings were read; its layers are merged when they are asked for.

    Args:
        path: ``docker save`` archive (also compressed), OCI archive, or OCI layout folder.
        folder: Where layers are unpacked, to files without a name.
        wanted: Which image of it.
        limits: Bounds of what is read.
        advanced: Called with the bytes that were read to open it: all of an archive that is
            compressed as a whole.

    Raises:
        MissingInput: There is no such file.
        MalformedImage: It is no saved image, or damaged.
        UsageError: Several images and nothing says which, or none for the architecture.
    """

    def __init__(
        self,
        path: pathlib.Path,
        folder: pathlib.Path,
        wanted: Wanted | None = None,
        limits: Limits | None = None,
        *,
        advanced: Callable[[int], None] = lambda _: None,
    ) -> None:
        wanted = wanted or Wanted()
        self._limits = limits or Limits()
        self._budget = Budget(self._limits)
        self._folder = folder
        self._blobs = _blobs(path, Unpacker(folder, self._budget, advanced), self._budget)
        self._saved: Saved = saved.find(self._blobs, wanted, self._limits)
        raw = self._blobs.find(self._saved.config).read(self._limits.metadata, "configuration")
        self.document = raw
        self.identity = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        if self._saved.identity not in (None, self.identity):
            raise MalformedImage(
                f"`{path}`: the configuration has the digest {self.identity},"
                f" expected {self._saved.identity}: it is damaged"
            )
        document = Document.read(raw, f"`{path}`: configuration")
        self.config = settings.image_config(document)
        if self.config.architecture != wanted.architecture:
            raise UsageError(
                f"`{path}` is for linux/{self.config.architecture},"
                f" expected linux/{wanted.architecture}",
                hint="--platform says what is built for",
            )
        self._diff_ids = settings.diff_ids(document)
        if len(self._diff_ids) != len(self._saved.layers):
            raise MalformedImage(
                f"`{path}`: {len(self._saved.layers)} layers are there,"
                f" the configuration lists {len(self._diff_ids)}"
            )
        self.names = self._saved.names

    @property
    def size(self) -> int:
        """Bytes of its layers as they were saved."""
        return sum(self._blobs.find(layer.path).size for layer in self._saved.layers)

    def load(self, advanced: Callable[[int], None] = lambda _: None) -> BuiltImage:
        """Its files and settings.

        Args:
            advanced: Called with the bytes of the saved layers that were read.

        Raises:
            MalformedImage: A digest differs, a layer is damaged or would reach outside of the
                image, or there is more of it than the limits.
            OutputError: There is no room to unpack it.
        """
        counting = _Counting(advanced)
        unpacker = Unpacker(self._folder, self._budget, counting)
        merging = Merging()
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            coming: list[_Coming] = []
            try:
                coming.extend(self._coming(unpacker, pool))
                for layer in coming:
                    archive = layer.archive()
                    if archive.size:
                        walked = walk(archive, self._budget, name=layer.name)
                        merging.add(walked, layer.name)
                for layer in coming:
                    layer.check.result()
            except MalformedImage:
                # What a damaged layer looks like says less than that it is damaged.
                for layer in coming:
                    layer.check.result()
                raise
            finally:
                counting.is_over.set()
                for layer in coming:
                    layer.check.cancel()
        remove_stubs(merging.tree)
        return BuiltImage(
            tree=merging.tree,
            config=self.config,
            warnings=merging.warnings(),
            identity=self.identity,
            builder="none",
        )

    def _coming(
        self, unpacker: Unpacker, pool: concurrent.futures.ThreadPoolExecutor
    ) -> Iterator["_Coming"]:
        """The layers from the lowest up, each in work from then on."""
        for number, (layer, diff_id) in enumerate(
            zip(self._saved.layers, self._diff_ids, strict=True), start=1
        ):
            name = f"`{self._blobs.name}`: layer {number} ({diff_id[:19]}…)"
            blob = self._blobs.find(layer.path)
            if layer.size not in (None, blob.size):
                raise MalformedImage(f"{name} is {blob.size} bytes long, expected {layer.size}")
            if unpacker.compression(blob) is None:
                # It is read while it is checked; the image is given out when all are right.
                expected = {layer.digest, diff_id} - {None}
                check = pool.submit(unpacker.check, blob, name, expected)
                yield _Coming(name, check, functools.partial(_same, blob))
            else:
                made = pool.submit(unpacker.tar, blob, name, digest=layer.digest, unpacked=diff_id)
                yield _Coming(name, made, made.result)


class _Coming(NamedTuple):
    """A layer that is being made ready: how messages call it, its check, and its archive."""

    name: str
    check: concurrent.futures.Future[Any]
    archive: Callable[[], Slice]


class _Counting:
    """Passes a count on, until nobody wants the layers any more: then their work ends at once."""

    def __init__(self, advanced: Callable[[int], None]) -> None:
        self._advanced = advanced
        self.is_over = threading.Event()

    def __call__(self, count: int) -> None:
        if self.is_over.is_set():
            raise concurrent.futures.CancelledError
        self._advanced(count)


def _same(blob: Slice) -> Slice:
    return blob


def _blobs(path: pathlib.Path, unpacker: Unpacker, budget: Budget) -> Blobs:
    if path.is_dir():
        return FolderBlobs(path)
    if not path.exists():
        raise MissingInput(f"there is no image `{path}`")
    whole = unpacker.tar(Backing.open(path).whole(), f"`{path}`", digest=None, unpacked=None)
    return ArchiveBlobs(whole, budget)
