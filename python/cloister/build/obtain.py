"""Where the files and settings of an image come from: a Dockerfile, a saved image, a folder.

What comes out says what the image is called by its content, where it is, so that files that were
seen before need not be read again.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Protocol

from cloister.build import dockerfile
from cloister.build.builders import (
    BuildRequest,
    ContainerBuilder,
    StoredImage,
    all_builders,
    choose,
)
from cloister.build.built_image import BuiltImage
from cloister.build.cache import Cache
from cloister.build.growth import watched
from cloister.build.image_config import ImageConfig
from cloister.build.progress import Progress
from cloister.build.request import FromDockerfile, FromFolder, FromImage, Request
from cloister.build.sources import SavedImage, Wanted, read_folder
from cloister.build.sources.documents import Document
from cloister.build.sources.settings import image_config
from cloister.errors import MissingInput


class Obtained(Protocol):
    """An image whose settings are known, and whose files can be read."""

    @property
    def identity(self) -> str | None:
        """Digest that names files and settings; ``None``: nothing does."""

    @property
    def config(self) -> ImageConfig:
        """What runs."""

    @property
    def record(self) -> str:
        """How it was built, for ``enclave.Dockerfile``."""

    @property
    def builder(self) -> str:
        """What built it."""

    def load(self, progress: Progress) -> BuiltImage:
        """Its files."""


@contextlib.contextmanager
def obtain(
    request: Request, cache: Cache, scratch: pathlib.Path, progress: Progress
) -> Iterator[Obtained]:
    """The image of a request; what a builder or an archive needs is there inside the block.

    Args:
        request: What to build.
        cache: What was seen before.
        scratch: A folder for files that end with the block.
        progress: Told about each stage.

    Raises:
        MissingInput: A file is not there.
        MalformedImage: A Dockerfile, an archive or a file of the context cannot be used.
        BuildFailed: A builder ended with an error.
        UsageError: What was asked for does not fit together.
    """
    source = request.source
    if isinstance(source, FromFolder):
        with progress.stage(f"files of `{source.folder}`"):
            image = read_folder(source.folder, source.config)
        yield _Ready(image, _head(request, builder="none, from a folder of files"))
    elif isinstance(source, FromImage):
        with _saved(request, source, cache, scratch, progress) as obtained:
            yield obtained
    else:
        yield from _built(request, source, cache, scratch, progress)


def _built(
    request: Request,
    source: FromDockerfile,
    cache: Cache,
    scratch: pathlib.Path,
    progress: Progress,
) -> Iterator[Obtained]:
    file = request.toml.beside(request.toml.dockerfile)
    chosen = _chosen(source, file, progress)
    if chosen is None:
        with progress.stage(f"files of `{request.toml.dockerfile}`"):
            options = dockerfile.Options(
                build_args=source.build_args,
                private=request.private,
                architecture=request.architecture,
                target=source.target,
                load_image=lambda path: _load(path, request, scratch),
                scratch=scratch,
            )
            image = dockerfile.run(file, source.context, options)
        yield _Ready(image, _record(request, file, builder="native", bases=image.bases))
        return
    wanted = BuildRequest(
        dockerfile=file,
        context=source.context,
        build_args=source.build_args,
        secrets=source.secrets,
        no_cache=source.no_cache,
        architecture=request.architecture,
        epoch=request.epoch,
        private=request.private,
        target=source.target,
        scratch=scratch,
    )
    with contextlib.ExitStack() as stack:
        with progress.stage(f"`{request.toml.dockerfile}` by {chosen.name}"):
            stored = stack.enter_context(chosen.build(wanted, progress.tell))
        record = _record(request, file, builder=stored.builder, bases=stored.bases)
        yield _Stored(stored, record, request, cache, scratch, progress=progress)


def _chosen(
    source: FromDockerfile, file: pathlib.Path, progress: Progress
) -> ContainerBuilder | None:
    """The builder; ``None``: this program itself."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as problem:
        raise MissingInput(
            f"there is no Dockerfile `{file}`"
            if isinstance(problem, FileNotFoundError)
            else f"`{file}` cannot be read: {problem.strerror}",
            hint="`dockerfile` in enclave.toml names it, relative to that file",
        ) from None
    reason = dockerfile.needs_container(
        text, str(file), target=source.target, build_args=source.build_args
    )
    builder = choose(source.builder, reason, progress.tell)
    return builder if isinstance(builder, ContainerBuilder) else None


def _load(path: pathlib.Path, request: Request, scratch: pathlib.Path) -> BuiltImage:
    return SavedImage(path, scratch, Wanted(architecture=request.architecture)).load()


@contextlib.contextmanager
def _saved(
    request: Request, source: FromImage, cache: Cache, scratch: pathlib.Path, progress: Progress
) -> Iterator[Obtained]:
    wanted = Wanted(reference=source.name, architecture=request.architecture)
    if source.path is not None:
        with progress.stage(f"`{source.path}` opened") as advanced:
            saved = SavedImage(source.path, scratch, wanted, advanced=advanced)
        yield _Archive(saved, _head(request, builder="none, from a saved image", image=saved))
        return
    stored = _found(source, progress)
    head = _head(request, builder=stored.builder)
    yield _Stored(stored, head, request, cache, scratch, progress=progress)


def _found(source: FromImage, progress: Progress) -> StoredImage:
    """An image by its name, in the first store that has it."""
    problems = []
    for builder in all_builders():
        if not isinstance(builder, ContainerBuilder) or source.builder not in (AUTO, builder.name):
            continue
        unusable = builder.unusable()
        if unusable is not None:
            problems.append(f"{builder.name}: {unusable.reason}")
            continue
        try:
            found = builder.find(source.reference)
        except MissingInput as problem:
            problems.append(problem.message)
            continue
        progress.tell(f"`{source.reference}` is an image of {builder.name}")
        return found
    raise MissingInput(
        f"there is no file and no image `{source.reference}` ({'; '.join(problems)})",
        hint="--image takes a path, or the name of an image that docker, podman or buildah holds",
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Ready:
    """Files that were read already."""

    image: BuiltImage
    record: str

    @property
    def identity(self) -> str | None:
        return self.image.identity

    @property
    def config(self) -> ImageConfig:
        return self.image.config

    @property
    def builder(self) -> str:
        return self.image.builder

    def load(self, progress: Progress) -> BuiltImage:  # noqa: ARG002 - they are there
        return self.image


class _Archive:
    """A saved image."""

    builder = "none"

    def __init__(self, saved: SavedImage, record: str) -> None:
        self._saved = saved
        self.record = record
        self.identity: str | None = saved.identity
        self.config = saved.config

    def load(self, progress: Progress) -> BuiltImage:
        with progress.stage("layers, checked and merged", size=self._saved.size) as advanced:
            return self._saved.load(advanced)


class _Stored:
    """An image in a builder's store, which is saved only when its files are needed."""

    def __init__(  # noqa: PLR0913 - the request and what serves it
        self,
        stored: StoredImage,
        record: str,
        request: Request,
        cache: Cache,
        scratch: pathlib.Path,
        *,
        progress: Progress,
    ) -> None:
        self._stored = stored
        self._scratch = scratch
        self._wanted = Wanted(architecture=request.architecture)
        self._saved: SavedImage | None = None
        self.record = record
        self.builder = stored.builder
        self.identity: str | None = stored.identity
        known = cache.settings(stored.identity)
        if known is None:
            saved = self._save(progress)
            self.identity, self.config = saved.identity, saved.config
            cache.keep_settings(saved.identity, saved.document)
        else:
            self.config = image_config(Document.read(known, f"image {stored.identity}"))

    def load(self, progress: Progress) -> BuiltImage:
        saved = self._saved
        if saved is None:
            saved = self._save(progress)
        with progress.stage("layers, checked and merged", size=saved.size) as advanced:
            return saved.load(advanced)

    def _save(self, progress: Progress) -> SavedImage:
        archive = self._scratch / "image.tar"
        with (
            progress.stage(f"image from {self.builder}") as advanced,
            watched(self._scratch, advanced),
        ):
            self._stored.save(archive)
        self._saved = SavedImage(archive, self._scratch, self._wanted)
        return self._saved


def _record(request: Request, file: pathlib.Path, *, builder: str, bases: Sequence[str]) -> str:
    """A Dockerfile, and what is not in it."""
    # The empty line keeps its directives from being taken for ours; they mean nothing there.
    text = file.read_text(encoding="utf-8", errors="replace")
    return f"{_head(request, builder=builder, bases=bases)}\n{text}"


def _head(
    request: Request,
    *,
    builder: str,
    bases: Sequence[str] = (),
    image: SavedImage | None = None,
) -> str:
    """The first lines of the record: what a third party needs to build it again."""
    source = request.source
    names = sorted(source.build_args) if isinstance(source, FromDockerfile) else []
    lines = [
        "# Record of a build by cloister: what was built, for whoever wants to build it again.",
        f"# builder: {builder}",
        f"# platform: linux/{request.architecture}",
        f"# build arguments, names only: {', '.join(names) or 'none'}",
        f"# SOURCE_DATE_EPOCH: {request.epoch}",
    ]
    if isinstance(source, FromDockerfile) and source.target is not None:
        lines.append(f"# target: {source.target}")
    lines += [f"# base: {base}" for base in bases]
    if image is not None:
        lines.append(f"# image: {image.identity}")
        lines += [f"# name: {name}" for name in image.names]
    return "\n".join(lines) + "\n"


AUTO = "auto"
