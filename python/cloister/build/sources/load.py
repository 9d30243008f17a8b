"""From a saved image to its files and settings: found, checked, merged."""

import concurrent.futures
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable
from typing import Any

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
    ) -> None:
        wanted = wanted or Wanted()
        self._limits = limits or Limits()
        self._budget = Budget(self._limits)
        self._folder = folder
        self._blobs = _blobs(path, folder, self._budget)
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
        unpacker = Unpacker(self._folder, self._budget, advanced)
        merging = Merging()
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            checks: list[concurrent.futures.Future[Any]] = []
            coming: list[tuple[str, Callable[[], Slice]]] = []
            try:
                for number, (layer, diff_id) in enumerate(
                    zip(self._saved.layers, self._diff_ids, strict=True), start=1
                ):
                    name = f"`{self._blobs.name}`: layer {number} ({diff_id[:19]}…)"
                    blob = self._blobs.find(layer.path)
                    if layer.size not in (None, blob.size):
                        raise MalformedImage(
                            f"{name} is {blob.size} bytes long, expected {layer.size}"
                        )
                    if unpacker.compression(blob) is None:
                        # It is read while it is checked; the image is given out when all are right.
                        expected = {layer.digest, diff_id} - {None}
                        checks.append(pool.submit(unpacker.check, blob, name, expected))
                        coming.append((name, functools.partial(_same, blob)))
                    else:
                        made = pool.submit(
                            unpacker.tar, blob, name, digest=layer.digest, unpacked=diff_id
                        )
                        checks.append(made)
                        coming.append((name, made.result))
                for name, ready in coming:
                    archive = ready()
                    if archive.size:
                        merging.add(walk(archive, self._budget, name=name), name)
                for check in checks:
                    check.result()
            except MalformedImage:
                # What a damaged layer looks like says less than that it is damaged.
                for check in checks:
                    check.result()
                raise
            finally:
                for check in checks:
                    check.cancel()
        remove_stubs(merging.tree)
        return BuiltImage(
            tree=merging.tree,
            config=self.config,
            warnings=merging.warnings(),
            identity=self.identity,
            builder="none",
        )


def _same(blob: Slice) -> Slice:
    return blob


def _blobs(path: pathlib.Path, folder: pathlib.Path, budget: Budget) -> Blobs:
    if path.is_dir():
        return FolderBlobs(path)
    if not path.exists():
        raise MissingInput(f"there is no image `{path}`")
    whole = Unpacker(folder, budget).tar(
        Backing.open(path).whole(), f"`{path}`", digest=None, unpacked=None
    )
    return ArchiveBlobs(whole, budget)
