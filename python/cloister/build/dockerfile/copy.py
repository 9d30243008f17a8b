"""COPY, and ADD of local files: from the context into the tree of the image."""

import dataclasses
import os
import stat

from cloister.build.context_mode import context_mode
from cloister.build.dockerfile.context import Context, Found
from cloister.build.dockerfile.place import ONLY_NATIVE, Place
from cloister.build.rootfs import Directory, File, FileBytes, Node, Symlink, Tree, shown
from cloister.errors import MalformedImage


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One COPY or ADD.

    Args:
        place: Its line.
        sources: Paths or patterns in the context.
        destination: Path in the image, as written.
        uid: Owner of everything that is made.
        gid: Group of it.
        mode: Permission bits of everything; ``None``: 0755 for what may be
            executed and for folders, 0644 for the rest.
        is_add: ADD, which would unpack an archive.
    """

    place: Place
    sources: tuple[str, ...]
    destination: str
    uid: int = 0
    gid: int = 0
    mode: int | None = None
    is_add: bool = False


def copy(tree: Tree, context: Context, what: Copy, cwd: str) -> None:
    """Does it.

    Args:
        tree: The image's files.
        context: Where from.
        what: What to copy.
        cwd: The working directory, absolute.

    Raises:
        MalformedImage: With the line: a source is not there or leads out, or the destination is
            not what it has to be.
    """
    found = [item for source in what.sources for item in context.matching(source, what.place)]
    written = os.fsencode(what.destination)
    is_folder = written.endswith(b"/") or written.rpartition(b"/")[2] in (b".", b"..")
    if len(found) > 1 and not is_folder:
        raise what.place.error(
            f"several files are copied to `{what.destination}`, which must then end in `/`"
        )
    base = b"" if written.startswith(b"/") else os.fsencode(cwd)
    copying = _Copying(tree, context, what)
    try:
        destination = tree.resolve(base + b"/" + written)
        is_folder = is_folder or isinstance(tree.node(destination), Directory)
        for item in found:
            copying.one(item, destination, is_folder=is_folder)
    except MalformedImage as problem:
        if problem.message.startswith(f"{what.place.file}:"):
            raise
        raise what.place.error(problem.message, hint=problem.hint) from None


class _Copying:
    def __init__(self, tree: Tree, context: Context, what: Copy) -> None:
        self._tree = tree
        self._context = context
        self._what = what

    def one(self, item: Found, destination: bytes, *, is_folder: bool) -> None:
        if item.is_directory:
            self._folders(destination)
            for inner in self._context.below(item, self._what.place):
                tail = inner.relative[len(item.relative) :].lstrip(b"/")
                self._put(_join(destination, tail), inner)
            return
        if self._what.is_add:
            _refuse_archive(item, self._what.place)
        name = item.relative.rpartition(b"/")[2]
        target = _join(destination, name) if is_folder else destination
        self._folders(target.rpartition(b"/")[0])
        self._put(target, item)

    def _put(self, path: bytes, item: Found) -> None:
        """One entry; a folder that is there already keeps its place, links to folders included."""
        parent, _, name = path.rpartition(b"/")
        path = _join(self._tree.resolve(parent), name)
        if item.is_directory:
            # A folder may land on a link that leads to one, as in an image where /bin is a link.
            path = self._tree.resolve(path)
        self._tree.put(path, self._node(item))

    def _node(self, item: Found) -> Node:
        what = self._what
        mode = context_mode(item.status.st_mode) if what.mode is None else what.mode
        if item.is_directory:
            return Directory(mode=mode, uid=what.uid, gid=what.gid)
        if stat.S_ISLNK(item.status.st_mode):
            target = os.readlink(os.fsencode(item.path))  # noqa: PTH115 - bytes as they are
            return Symlink(mode=0o777, uid=what.uid, gid=what.gid, target=target)
        content = FileBytes(item.path, item.status.st_size)
        return File(mode=mode, uid=what.uid, gid=what.gid, content=content)

    def _folders(self, path: bytes) -> None:
        self._tree.make_directories(path, uid=self._what.uid, gid=self._what.gid)


def _join(folder: bytes, name: bytes) -> bytes:
    return b"/".join(part for part in (folder, name) if part)


def _refuse_archive(item: Found, place: Place) -> None:
    """ADD unpacks a local archive; copying it as it is would be something else."""
    with item.path.open("rb") as file:
        start = file.read(512)
    is_tar = start[257:262] == b"ustar"
    if is_tar or any(start.startswith(magic) for magic in _ARCHIVES):
        raise place.error(
            f"ADD would unpack the archive `{shown(item.relative)}`, which is not supported yet",
            hint="COPY copies it as it is; unpack it before the build; " + ONLY_NATIVE,
        )


_ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
