"""COPY and ADD: from the context, another stage or a heredoc into the tree of the image."""

import dataclasses
import os
import pathlib
import tarfile

from cloister.build.content import Backing
from cloister.build.dockerfile.copy_source import CopySource, Picked
from cloister.build.dockerfile.place import Place
from cloister.build.rootfs import Directory, File, FileBytes, Node, Symlink, Tree, shown
from cloister.build.sources.archive import walk
from cloister.build.sources.limits import Budget, Limits
from cloister.build.sources.merge import Merging
from cloister.build.sources.unpack import Unpacker
from cloister.errors import MalformedImage


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One COPY or ADD.

    Args:
        place: Its line.
        sources: Where from, and which paths or patterns of it.
        destination: Path in the image, as written.
        owner: User and group of everything that is made; ``None``: as in the source, which is 0
            for the context.
        mode: Permission bits of everything; ``None``: as in the source, which is 0755 or 0644 for
            the context.
        is_add: ADD, which unpacks a local archive.
        scratch: Where ADD decompresses an archive, to a file without a name.
    """

    place: Place
    sources: tuple[tuple[CopySource, str], ...]
    destination: str
    owner: tuple[int, int] | None = None
    mode: int | None = None
    is_add: bool = False
    scratch: pathlib.Path


def copy(tree: Tree, what: Copy, cwd: str) -> None:
    """Does it.

    Args:
        tree: The image's files.
        what: What to copy.
        cwd: The working directory, absolute.

    Raises:
        MalformedImage: With the line: a source is not there or leads out, or the destination is
            not what it has to be, or an archive reaches out of the image.
    """
    found = [
        (source, item)
        for source, pattern in what.sources
        for item in source.matching(pattern, what.place)
    ]
    written = os.fsencode(what.destination)
    is_folder = written.endswith(b"/") or written.rpartition(b"/")[2] in (b".", b"..")
    if len(found) > 1 and not is_folder:
        raise what.place.error(
            f"several files are copied to `{what.destination}`, which must then end in `/`"
        )
    base = b"" if written.startswith(b"/") else os.fsencode(cwd)
    copying = _Copying(tree, what)
    try:
        destination = tree.resolve(base + b"/" + written)
        is_folder = is_folder or isinstance(tree.node(destination), Directory)
        for source, item in found:
            copying.one(source, item, destination, is_folder=is_folder)
    except MalformedImage as problem:
        raise what.place.wrap(problem) from None


class _Copying:
    def __init__(self, tree: Tree, what: Copy) -> None:
        self._tree = tree
        self._what = what
        # By identity; the original is held, so that its identity is nobody else's.
        self._linked: dict[int, tuple[File, File]] = {}

    def one(self, source: CopySource, item: Picked, destination: bytes, *, is_folder: bool) -> None:
        if item.is_directory:
            self._folders(destination)
            for inner in source.below(item, self._what.place):
                tail = inner.relative[len(item.relative) :].lstrip(b"/")
                self._put(_join(destination, tail), inner)
            return
        if self._what.is_add and self._unpack(item, destination):
            return
        name = item.relative.rpartition(b"/")[2]
        target = _join(destination, name) if is_folder else destination
        self._folders(target.rpartition(b"/")[0])
        self._put(target, item)

    def _put(self, path: bytes, item: Picked) -> None:
        """One entry; a folder that is there already keeps its place, links to folders included."""
        parent, _, name = path.rpartition(b"/")
        path = _join(self._tree.resolve(parent), name)
        if item.is_directory:
            # A folder may land on a link that leads to one, as in an image where /bin is a link.
            path = self._tree.resolve(path)
        self._tree.put(path, self._node(item.node))

    def _node(self, node: Node) -> Node:
        """The entry anew: two stages never share one, but hard links stay links in a copy."""
        known = self._linked.get(id(node))
        if known is not None:
            return known[1]
        uid, gid = (node.uid, node.gid) if self._what.owner is None else self._what.owner
        mode = node.mode if self._what.mode is None else self._what.mode
        if isinstance(node, Symlink):
            return dataclasses.replace(node, uid=uid, gid=gid)
        if isinstance(node, Directory):
            return dataclasses.replace(node, uid=uid, gid=gid, mode=mode, children={})
        made = dataclasses.replace(node, uid=uid, gid=gid, mode=mode)
        if isinstance(node, File) and isinstance(made, File):
            self._linked[id(node)] = (node, made)
        return made

    def _unpack(self, item: Picked, destination: bytes) -> bool:
        """A local archive, as ADD says: its files, with owners and modes of its own.

        What is one is decided by what is in it, not by its name (Dockerfile reference, ADD).

        Returns:
            Whether it is an archive; a damaged one that never was is a file as any other.
        """
        content = item.node.content if isinstance(item.node, File) else None
        if not isinstance(content, FileBytes):
            return False
        budget = Budget(Limits())
        name = f"`{shown(item.relative)}`"
        unpacker = Unpacker(self._what.scratch, budget)
        archive = Backing.open(content.path).whole()
        if not _starts_as_tar(unpacker.start(archive, name, tarfile.BLOCKSIZE)):
            return False
        unpacked = unpacker.tar(archive, name, digest=None, unpacked=None)
        self._folders(destination)
        merging = Merging(self._tree, has_whiteouts=False)
        owner, mode = self._what.owner, self._what.mode
        merging.add(
            (
                member._replace(
                    path=_join(destination, member.path),
                    target=_join(destination, member.target)
                    if member.is_hard_link
                    else member.target,
                    uid=member.uid if owner is None else owner[0],
                    gid=member.gid if owner is None else owner[1],
                    mode=member.mode if mode is None else mode,
                )
                for member in walk(unpacked, budget, name=name)
                if member.path
            ),
            name,
        )
        return True

    def _folders(self, path: bytes) -> None:
        uid, gid = self._what.owner or (0, 0)
        self._tree.make_directories(path, uid=uid, gid=gid)


def _join(folder: bytes, name: bytes) -> bytes:
    return b"/".join(part for part in (folder, name) if part)


def _starts_as_tar(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
