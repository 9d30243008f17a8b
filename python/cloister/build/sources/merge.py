"""Layers become one tree, as the OCI image specification says (layer.md, "Applying Changesets").

A later layer replaces what an earlier one has; ``.wh.name`` takes ``name`` of the earlier layers
away, ``.wh..wh..opq`` all that they have in its folder. Links on the way to an entry are followed
inside the tree, as after ``chroot``; nothing of this machine is ever named by an entry.
"""

from collections.abc import Iterable

from cloister.build.rootfs import Directory, File, Node, Symlink, Tree, shown
from cloister.build.sources.archive import Kind, Member
from cloister.errors import MalformedImage


class Merging:
    """A tree that layers are added to, from the lowest up.

    Args:
        tree: What is there already; default: nothing.
        has_whiteouts: Names that hide others do so; otherwise they are names, as in an archive
            that is no layer.
    """

    def __init__(self, tree: Tree | None = None, *, has_whiteouts: bool = True) -> None:
        self.tree = Tree() if tree is None else tree
        self.has_whiteouts = has_whiteouts
        self.left_out_devices: list[str] = []
        self.dropped_attributes: dict[str, int] = {}

    def add(self, members: Iterable[Member], layer: str) -> None:
        """Adds a layer.

        Args:
            members: Its entries, in its order.
            layer: How messages call it.

        Raises:
            MalformedImage: With the name of the entry: a whiteout of nothing, a hard link to
                something that is not there, a special file, an entry below a file.
        """
        adding = _Adding(self, layer)
        for member in members:
            adding.one(member)

    def warnings(self) -> list[str]:
        """What of the image does not reach the enclave, in words."""
        found = []
        if self.dropped_attributes:
            names = ", ".join(sorted(self.dropped_attributes)[:MAX_NAMED])
            count = sum(self.dropped_attributes.values())
            found.append(
                f"extended attributes are dropped, a ramdisk has none: {names} ({count} in all)"
            )
        if self.left_out_devices:
            names = ", ".join(self.left_out_devices[:MAX_NAMED])
            found.append(
                f"device nodes in /dev are left out, an enclave has its own: {names}"
                f" ({len(self.left_out_devices)} in all)"
            )
        return found


class _Adding:
    """One layer on its way into the tree."""

    def __init__(self, merging: Merging, layer: str) -> None:
        self._merging = merging
        self._tree = merging.tree
        self._layer = layer
        self._touched: set[bytes] = set()
        """What this layer put, and the folders above it: a whiteout leaves them alone."""
        self._put: set[bytes] = set()
        self._cleared: set[bytes] = set()
        self._parent = (b"", self._tree.root)

    def one(self, member: Member) -> None:
        parent, _, name = member.path.rpartition(b"/")
        for attribute in member.attributes:
            dropped = self._merging.dropped_attributes
            # What an archive says is counted by name, and names are many only in a hostile one.
            if attribute in dropped or len(dropped) < MAX_NAMED:
                key = shown(attribute.encode("utf-8", "surrogateescape"))
                dropped[key] = dropped.get(key, 0) + 1
        if self._merging.has_whiteouts and name.startswith(WHITEOUT):
            self._whiteout(member, parent, name)
        elif member.path:
            self._place(member, parent, name)
        elif member.kind is Kind.DIRECTORY:
            root = self._tree.root
            root.mode, root.uid, root.gid, root.mtime = _attributes(member)
        else:
            raise self._error(member.path, f"makes the root of the image a {member.kind.value}")

    def _whiteout(self, member: Member, parent: bytes, name: bytes) -> None:
        folder = self._resolved(parent)
        if name == OPAQUE:
            self._clear(folder)
            return
        if name.startswith(WHITEOUT + WHITEOUT):
            return  # Bookkeeping of AUFS, which other tools pass over too.
        hidden = name.removeprefix(WHITEOUT)
        if hidden in (b"", b".", b".."):
            raise self._error(member.path, "is a whiteout of nothing in its folder")
        path = _joined(folder, hidden)
        if path not in self._touched:
            self._tree.remove(path)
            return
        self._clear(path)
        node = self._tree.node(path)
        if path not in self._put and isinstance(node, Directory) and not node.children:
            self._tree.remove(path)

    def _clear(self, path: bytes) -> None:
        """Takes away what earlier layers have below a folder; each folder is gone through once."""
        todo = [path]
        emptied: list[bytes] = []
        while todo:
            at = todo.pop()
            folder = self._tree.node(at)
            if at in self._cleared or not isinstance(folder, Directory):
                continue
            self._cleared.add(at)
            for name in list(folder.children):
                inner = _joined(at, name)
                if inner not in self._touched:
                    del folder.children[name]
                elif isinstance(folder.children[name], Directory):
                    todo.append(inner)
                    emptied.append(inner)
        for inner in reversed(emptied):
            node = self._tree.node(inner)
            if inner not in self._put and isinstance(node, Directory) and not node.children:
                self._tree.remove(inner)

    def _place(self, member: Member, parent: bytes, name: bytes) -> None:
        path, folder = self._folder(member, parent)
        before = folder.children.get(name)
        full = _joined(path, name)
        node = self._node(member, full)
        if node is None:
            return
        if type(node) is Directory and type(before) is Directory:
            node.children = before.children
        if len(full) > MAX_PATH_BYTES or len(name) > MAX_PART_BYTES or b"\0" in name:
            raise self._error(member.path, "has a name that is too long, or has a zero byte in it")
        folder.children[name] = node
        self._put.add(full)
        while full not in self._touched:
            self._touched.add(full)
            full = full.rpartition(b"/")[0]

    def _folder(self, member: Member, parent: bytes) -> tuple[bytes, Directory]:
        """The folder of an entry, links on the way to it followed, made where it is not there."""
        known, folder = self._parent
        if known == parent and self._tree.node(known) is folder:
            return known, folder
        found = self._tree.node(parent)
        path = parent
        if type(found) is not Directory:
            path = self._resolved(parent)
            try:
                self._tree.make_directories(path)
            except MalformedImage:
                raise self._error(member.path, "lies in something that is no folder") from None
            found = self._tree.node(path)
            if type(found) is not Directory:
                raise self._error(member.path, "lies in something that is no folder")
        elif path == parent:
            self._parent = (parent, found)
        return path, found

    def _resolved(self, path: bytes) -> bytes:
        try:
            return self._tree.resolve(path)
        except MalformedImage as problem:
            raise MalformedImage(f"{self._layer}: {problem.message}") from None

    def _node(self, member: Member, full: bytes) -> Node | None:
        mode, uid, gid, mtime = _attributes(member)
        if member.kind is Kind.FILE and member.content is not None:
            return File(mode=mode, uid=uid, gid=gid, mtime=mtime, content=member.content)
        if member.kind is Kind.DIRECTORY:
            return Directory(mode=mode, uid=uid, gid=gid, mtime=mtime)
        if member.kind is Kind.SYMLINK:
            return Symlink(mode=0o777, uid=uid, gid=gid, mtime=mtime, target=member.target)
        if member.kind is Kind.LINK:
            return self._linked(member, full)
        if member.kind is Kind.DEVICE and full.startswith(b"dev/"):
            self._merging.left_out_devices.append(shown(full))
            return None
        raise self._error(member.path, f"is a {member.kind.value}, which an enclave cannot have")

    def _linked(self, member: Member, full: bytes) -> Node:
        parent, _, name = member.target.rpartition(b"/")
        target = _joined(self._resolved(parent), name)
        node = self._tree.node(target)
        if type(node) is Symlink:
            return Symlink(
                mode=0o777, uid=node.uid, gid=node.gid, mtime=node.mtime, target=node.target
            )
        if type(node) is not File:
            raise self._error(
                member.path, f"is a hard link to `{shown(target)}`, which is no file of the image"
            )
        if target == full:
            raise self._error(member.path, "is a hard link to itself")
        return node

    def _error(self, path: bytes, problem: str) -> MalformedImage:
        return MalformedImage(f"{self._layer}: entry `{shown(path)}` {problem}")


def _attributes(member: Member) -> tuple[int, int, int, int]:
    return member.mode, member.uid, member.gid, member.mtime


def _joined(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
MAX_PATH_BYTES = 4096 - len(b"rootfs/") - 1
"""PATH_MAX with its final zero, less the folder that an image's root lies in."""
MAX_PART_BYTES = 255
MAX_NAMED = 20
