"""The context as a builder sees it: a copy without what is private or left out.

Builders are given a folder of ours, because their own ways of leaving files out have gaps: the
classic builder reads no file of patterns but the one in the user's folder, and buildah mounts the
whole context for ``RUN --mount=type=bind``, whatever is ignored. What is not in the folder cannot
be copied by any of them. The user's folder is only read: not even a link count in it changes.
"""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence

from cloister.build.builders.protocol import BuildRequest, Tell
from cloister.build.context_mode import context_mode
from cloister.build.dockerfile.ignore import Ignore
from cloister.build.rootfs import shown
from cloister.errors import InputError, MissingInput, OutputError, UsageError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a builder is given.

    Args:
        folder: Where everything of it is; the builder may leave files of its own here.
        context: The context.
        dockerfile: The Dockerfile, outside of the context; :attr:`ignore` is beside it.
        inner_dockerfile: The Dockerfile inside of the context, when it is there.
        left_out: Private files and folders that would have been in it.
    """

    folder: pathlib.Path
    context: pathlib.Path
    dockerfile: pathlib.Path
    inner_dockerfile: pathlib.Path | None
    left_out: tuple[str, ...]

    @property
    def ignore(self) -> pathlib.Path:
        """A file of patterns without a pattern."""
        return self.dockerfile.with_name(self.dockerfile.name + ".dockerignore")

    def hint(self, lines: Sequence[str]) -> str | None:
        """What to say about a failure whose last lines name something that is private."""
        named = [path for path in self.left_out if any(path.strip("/") in line for line in lines)]
        if not named:
            return None
        return f"{', '.join(named)}: private, so it never reaches a builder"


@contextlib.contextmanager
def staged(request: BuildRequest, tell: Tell) -> Iterator[Stage]:
    """The context of a request, until the end of the block.

    Args:
        request: What is to be built.
        tell: Told what is private and left out, and what no builder can copy.

    Raises:
        MissingInput: There is no such Dockerfile or context.
        UsageError: The context is in a private folder.
        InputError: A file of it cannot be read.
        OutputError: There is no room for the copy.
        MalformedImage: ``.dockerignore`` cannot be read.
    """
    if not request.context.is_dir():
        raise MissingInput(f"the build context `{request.context}` is not a folder")
    try:
        text = request.dockerfile.read_bytes()
    except OSError as problem:
        raise MissingInput(f"`{request.dockerfile}` cannot be read: {problem.strerror}") from None
    with tempfile.TemporaryDirectory(
        prefix="cloister-build-", dir=request.scratch, ignore_cleanup_errors=True
    ) as made:
        folder = pathlib.Path(made)
        copying = _Copying(request, tell)
        copying.all(folder / "context")
        if copying.left_out:
            tell(f"private, kept out of the build: {', '.join(copying.left_out)}")
        dockerfile = folder / "Dockerfile"
        dockerfile.write_bytes(text)
        inner = (
            folder
            / "context"
            / os.path.relpath(request.dockerfile.resolve(), request.context.resolve())
        )
        is_inside = folder / "context" in inner.parents and inner.is_file()
        stage = Stage(
            folder=folder,
            context=folder / "context",
            dockerfile=dockerfile,
            inner_dockerfile=inner if is_inside else None,
            left_out=tuple(copying.left_out),
        )
        stage.ignore.write_text("# Everything that is left out is left out already.\n")
        yield stage


class _Copying:
    def __init__(self, request: BuildRequest, tell: Tell) -> None:
        self._root = request.context.resolve()
        self._ignore = Ignore.of(request.context, request.dockerfile)
        self._tell = tell
        self._epoch = request.epoch
        self._private = {path.resolve() for path in request.private}
        self._private_files = set(_files(request.private))
        if not self._private.isdisjoint([self._root, *self._root.parents]):
            raise UsageError(
                f"the build context `{self._root}` is private to this program",
                hint="build from the folder that has the Dockerfile's files",
            )
        self.left_out: list[str] = []

    def all(self, to: pathlib.Path) -> None:
        try:
            self._folder(self._root, "", to, self._root.lstat())
        except _Unreadable as problem:
            raise InputError(str(problem)) from problem
        except OSError as problem:
            raise OutputError(
                f"the build context cannot be copied to `{to}`: {problem.strerror}",
                hint="TMPDIR names another folder for temporary files",
            ) from problem

    def _folder(
        self, path: pathlib.Path, relative: str, to: pathlib.Path, status: os.stat_result
    ) -> None:
        to.mkdir(0o700)
        try:
            with os.scandir(path) as entries:
                found = sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in entries)
        except OSError as problem:
            raise _Unreadable(path, problem) from problem
        for name, its_status in found:
            inner = f"{relative}/{name}" if relative else name
            self._entry(path / name, inner, to / name, its_status)
        self._attributes(to, status)

    def _entry(
        self, path: pathlib.Path, name: str, to: pathlib.Path, status: os.stat_result
    ) -> None:
        is_out = self._ignore.leaves_out(name)
        if path in self._private or (status.st_dev, status.st_ino) in self._private_files:
            if not is_out:
                self.left_out.append(shown(os.fsencode(name)))
        elif stat.S_ISDIR(status.st_mode):
            if not is_out or self._ignore.may_take_back:
                self._folder(path, name, to, status)
            if is_out and self._ignore.may_take_back and not any(to.iterdir()):
                to.rmdir()
        elif is_out:
            return
        elif stat.S_ISLNK(status.st_mode):
            to.symlink_to(path.readlink())
            os.utime(to, (self._epoch, self._epoch), follow_symlinks=False)
        elif stat.S_ISREG(status.st_mode):
            _copy(path, to)
            self._attributes(to, status)
        else:
            what = shown(os.fsencode(name))
            self._tell(f"not in the build, as it is a device node, pipe or socket: {what}")

    def _attributes(self, path: pathlib.Path, status: os.stat_result) -> None:
        """Mode and time, as every machine would have them; owners are the builder's business."""
        path.chmod(context_mode(status.st_mode))
        os.utime(path, (self._epoch, self._epoch))


class _Unreadable(Exception):
    """A file of the context that cannot be read."""

    def __init__(self, path: pathlib.Path, problem: OSError) -> None:
        super().__init__(
            f"`{shown(os.fsencode(path))}` of the build context cannot be read: {problem.strerror}"
        )


def _files(private: frozenset[pathlib.Path]) -> Iterator[tuple[int, int]]:
    """Device and inode of the private files: another name of one is as private."""
    for path in private:
        with contextlib.suppress(OSError):
            status = path.stat()
            yield status.st_dev, status.st_ino


def _copy(source: pathlib.Path, to: pathlib.Path) -> None:
    """Copies the bytes of a file, or shares them where the file system can (ioctl_ficlone(2))."""
    try:
        reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as problem:
        raise _Unreadable(source, problem) from problem
    with os.fdopen(reading, "rb") as old, to.open("xb") as new:
        try:
            fcntl.ioctl(new, _FICLONE, old.fileno())
        except OSError:
            shutil.copyfileobj(old, new, 1 << 20)


_FICLONE = 0x40049409  # linux/fs.h
