"""A file tree as an image holds it: what is in it, who owns it, nothing of where it came from.

Paths are bytes, relative, without a slash at either end. A parent is always a directory of the
tree, so no entry can be reached through a link or lie outside. File contents stay where they are
until they are read, block by block.
"""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Protocol

from cloister.errors import MalformedImage


class Content(Protocol):
    """The bytes of a file."""

    @property
    def size(self) -> int:
        """How many, in bytes."""

    def blocks(self) -> Iterator[bytes]:
        """All of them, in order; exactly :attr:`size`.

        Raises:
            MalformedImage: There are more or fewer, or they cannot be read.
        """


@dataclasses.dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes in memory."""

    data: bytes

    @property
    def size(self) -> int:
        """How many."""
        return len(self.data)

    def blocks(self) -> Iterator[bytes]:
        """All of them."""
        if self.data:
            yield self.data


@dataclasses.dataclass(frozen=True, slots=True)
class FileBytes:
    """Bytes of a file on this machine.

    Args:
        path: The file.
        size: Its length when it was found.
    """

    path: pathlib.Path
    size: int

    def blocks(self) -> Iterator[bytes]:
        """All of them.

        Raises:
            MalformedImage: The file changed since it was found, or cannot be read.
        """
        left = self.size
        try:
            with self.path.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    left -= len(block)
                    if left < 0:
                        break
                    yield block
        except OSError as problem:
            raise MalformedImage(f"`{self.path}` cannot be read: {problem.strerror}") from problem
        if left:
            raise MalformedImage(
                f"`{self.path}` changed while it was read: it had {self.size} bytes",
                hint="build again when nothing writes to the context",
            )


@dataclasses.dataclass(slots=True, kw_only=True)
class Node:
    """What every entry has.

    Args:
        mode: Permission bits, set-id and sticky bits included.
        uid: Owner.
        gid: Group.
        mtime: Modification time as its image says, seconds since 1970; ``None``: nothing says one
            that would be the same on another machine.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int | None = None


@dataclasses.dataclass(slots=True, kw_only=True)
class Directory(Node):
    """A directory; what is in it is the tree's business."""

    children: dict[bytes, Node] = dataclasses.field(default_factory=dict, repr=False)


@dataclasses.dataclass(slots=True, kw_only=True)
class File(Node):
    """A regular file; two names that hold the same object are hard links of each other."""

    content: Content


@dataclasses.dataclass(slots=True, kw_only=True)
class Symlink(Node):
    """A symbolic link; its target is never followed outside of the tree."""

    target: bytes


class Tree:
    """Entries by path, below a root that is a directory."""

    def __init__(self) -> None:
        self.root = Directory(mode=0o755)

    def __len__(self) -> int:
        """Number of entries, the root not counted; it takes a walk."""
        return sum(1 for _ in self._walk())

    def __iter__(self) -> Iterator[tuple[bytes, Node]]:
        """Paths and entries, by the bytes of the path: a directory comes before what is in it."""
        return iter(sorted(self._walk(), key=_path))

    def node(self, path: bytes) -> Node | None:
        """The entry at a path, links not followed; that of the empty path is the root."""
        at: Node = self.root
        if path:
            for part in path.split(b"/"):
                if type(at) is not Directory:
                    return None
                inner = at.children.get(part)
                if inner is None:
                    return None
                at = inner
        return at

    def put(self, path: bytes, node: Node) -> None:
        """Adds an entry, or replaces one of the same kind or another that is no directory.

        A directory that takes the place of one keeps what is in it.

        Raises:
            MalformedImage: The path is wrong, its parent is not a directory, or a directory would
                be replaced by something else or the reverse.
        """
        problem = _path_problem(path)
        if problem is not None:
            raise MalformedImage(f"image entry `{shown(path)}` {problem}")
        parent, _, name = path.rpartition(b"/")
        folder = self.node(parent)
        if type(folder) is not Directory:
            raise MalformedImage(f"image entry `{shown(path)}` lies in something that is no folder")
        before = folder.children.get(name)
        if before is not None:
            was_directory = type(before) is Directory
            if was_directory != (type(node) is Directory):
                kind = "a folder" if was_directory else "not a folder"
                raise MalformedImage(f"image entry `{shown(path)}` is there already, and is {kind}")
            if type(before) is Directory and type(node) is Directory:
                node.children = before.children
        folder.children[name] = node

    def copy(self) -> "Tree":
        """A tree with the same files, whose folders are its own."""
        made = Tree()
        made.root = _copied(self.root)
        return made

    def remove(self, path: bytes) -> None:
        """Takes an entry away, with everything in it; nothing happens where there is none."""
        parent, _, name = path.rpartition(b"/")
        folder = self.node(parent)
        if name and type(folder) is Directory:
            folder.children.pop(name, None)

    def _walk(self) -> Iterator[tuple[bytes, Node]]:
        todo = [(b"", self.root)]
        while todo:
            prefix, folder = todo.pop()
            for name, node in folder.children.items():
                path = prefix + name
                yield path, node
                if type(node) is Directory:
                    todo.append((path + b"/", node))

    def resolve(self, path: bytes) -> bytes:
        """Where a path leads, with every link on it followed inside the tree, as after chroot.

        What does not exist is taken as it is written, ``..`` goes up and stops at the root.

        Raises:
            MalformedImage: More than :data:`MAX_LINKS` links.
        """
        todo = path.split(b"/")[::-1]
        names: list[bytes] = []
        nodes: list[Node | None] = [self.root]
        links = 0
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                del names[-1:]
                del nodes[len(names) + 1 :]
                continue
            folder = nodes[-1]
            node = folder.children.get(part) if type(folder) is Directory else None
            if type(node) is not Symlink:
                names.append(part)
                nodes.append(node)
                continue
            links += 1
            if links > MAX_LINKS:
                raise MalformedImage(f"`/{shown(path)}` leads through too many links")
            if node.target.startswith(b"/"):
                names, nodes = [], [self.root]
            todo.extend(node.target.split(b"/")[::-1])
        return b"/".join(names)

    def make_directories(
        self, path: bytes, *, mode: int = 0o755, uid: int = 0, gid: int = 0
    ) -> None:
        """Makes a directory and those above it, where they are not there; links not followed.

        Raises:
            MalformedImage: Something on the way is there and is no directory.
        """
        parts = path.split(b"/") if path else []
        for length in range(1, len(parts) + 1):
            at = b"/".join(parts[:length])
            if not isinstance(self.node(at), Directory):
                self.put(at, Directory(mode=mode, uid=uid, gid=gid))


def shown(path: bytes) -> str:
    """A path for a message: printable, whatever its bytes are."""
    text = path[:MAX_SHOWN].decode("utf-8", errors="backslashreplace")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _copied(root: Directory) -> Directory:
    """A folder and the folders in it, anew; what they hold is shared."""
    made = dataclasses.replace(root, children=dict(root.children))
    todo = [made]
    while todo:
        folder = todo.pop()
        for name, node in folder.children.items():
            if type(node) is Directory:
                inner = dataclasses.replace(node, children=dict(node.children))
                folder.children[name] = inner
                todo.append(inner)
    return made


def _path(entry: tuple[bytes, Node]) -> bytes:
    return entry[0]


def _path_problem(path: bytes) -> str | None:
    if not path:
        return "has no name"
    if len(path) >= MAX_PATH_BYTES:
        return f"has a name of more than {MAX_PATH_BYTES - 1} bytes"
    for part in path.split(b"/"):
        if part in (b"", b".", b".."):
            return "has an empty part, `.` or `..` in its name"
        if len(part) > MAX_PART_BYTES or b"\0" in part:
            return f"has a part of more than {MAX_PART_BYTES} bytes, or a zero byte, in its name"
    return None


BLOCK_BYTES = 1 << 20
MAX_LINKS = 40
"""As the kernel follows (path_resolution(7))."""
MAX_PATH_BYTES = 4096 - len(b"rootfs/")
"""PATH_MAX with its final zero, less the folder that an image's root lies in."""
MAX_PART_BYTES = 255
MAX_SHOWN = 200
