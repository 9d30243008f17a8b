"""``--rootfs DIR``: a folder of this machine as the file system of an image.

Owners and modes are kept, times are not: when a file was copied to this machine says nothing about
it. Links are kept as they are and never followed; special files are refused, but for those in
``/dev``, of which an enclave has its own.
"""

import os
import pathlib
import stat

from cloister.build.built_image import BuiltImage
from cloister.build.image_config import ImageConfig
from cloister.build.rootfs import Directory, File, FileBytes, Node, Symlink, Tree, shown
from cloister.errors import MalformedImage, MissingInput


def read_folder(folder: pathlib.Path, config: ImageConfig) -> BuiltImage:
    """The files of a folder.

    Args:
        folder: The folder; what is in it becomes the root.
        config: What runs.

    Raises:
        MissingInput: It is no folder, or something in it cannot be read.
        MalformedImage: Something in it is a device node, pipe or socket.
    """
    reading = _Reading(folder)
    reading.whole()
    warnings = []
    if reading.devices:
        warnings.append(
            f"device nodes in /dev are left out, an enclave has its own ({reading.devices} in all)"
        )
    return BuiltImage(tree=reading.tree, config=config, warnings=warnings, builder="none")


class _Reading:
    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self.tree = Tree()
        self.devices = 0
        self._files: dict[tuple[int, int], File] = {}

    def whole(self) -> None:
        if not self._folder.is_dir():
            raise MissingInput(f"`{self._folder}` is not a folder")
        root = self._folder.stat()
        self.tree.root.mode = stat.S_IMODE(root.st_mode)
        self.tree.root.uid, self.tree.root.gid = root.st_uid, root.st_gid
        todo = [(b"", os.fsencode(self._folder))]
        while todo:
            prefix, at = todo.pop()
            try:
                with os.scandir(at) as entries:
                    listed = sorted(entries, key=lambda entry: entry.name)
                for entry in listed:
                    path = prefix + entry.name
                    self._one(path, entry)
                    if entry.is_dir(follow_symlinks=False):
                        todo.append((path + b"/", entry.path))
            except OSError as problem:
                raise MissingInput(
                    f"`{shown(at)}` cannot be read: {problem.strerror}",
                    hint="a file system with owners is read as root, or in `unshare --map-auto`",
                ) from problem

    def _one(self, path: bytes, entry: "os.DirEntry[bytes]") -> None:
        status = entry.stat(follow_symlinks=False)
        mode, uid, gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        node: Node
        if stat.S_ISDIR(status.st_mode):
            node = Directory(mode=mode, uid=uid, gid=gid)
        elif stat.S_ISLNK(status.st_mode):
            target = os.readlink(entry.path)  # noqa: PTH115 - bytes as they are
            node = Symlink(mode=0o777, uid=uid, gid=gid, target=target)
        elif stat.S_ISREG(status.st_mode):
            key = (status.st_dev, status.st_ino)
            known = self._files.get(key) if status.st_nlink > 1 else None
            node = known or File(
                mode=mode,
                uid=uid,
                gid=gid,
                content=FileBytes(pathlib.Path(os.fsdecode(entry.path)), status.st_size),
            )
            if status.st_nlink > 1 and isinstance(node, File):
                self._files[key] = node
        elif path.startswith(b"dev/"):
            self.devices += 1
            return
        else:
            raise MalformedImage(
                f"`{shown(path)}` is a device node, pipe or socket, which an enclave cannot have",
                hint="remove it from the folder",
            )
        self.tree.put(path, node)
