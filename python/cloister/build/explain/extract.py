"""Writes what is in an image below a folder, and nothing anywhere else.

Every file is opened by its name in a folder that is held open, links are never followed, and what
is no file, folder or link is recorded and not made. Owners are recorded too: whoever looks at an
image need not be root. Set-id bits are dropped, for the files are somebody else's.
"""

import contextlib
import errno
import json
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import Any

from cloister.build.eif import Eif, Kind
from cloister.build.explain.contents import Contents, Item, contents, on_disk
from cloister.build.explain.names import spelled
from cloister.build.rootfs import shown
from cloister.errors import MalformedImage, OutputError


def extract(image: Eif, folder: pathlib.Path) -> list[str]:
    """Writes sections and files of an image.

    Args:
        image: The image.
        folder: A new folder, or an empty one.

    Returns:
        What is in the image and was not made: special files.

    Raises:
        OutputError: The folder has something in it, or cannot be written.
        MalformedImage: A ramdisk cannot be read, or has a name that leads out; what was written
            until then stays.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise OutputError(
                f"`{on_disk(folder)}` is not empty", hint="name a new folder: nothing is replaced"
            )
        for kind, name in _SECTIONS.items():
            section = image.one(kind)
            if section is not None:
                (folder / name).write_bytes(section.payload)
        left_out: list[str] = []
        with contents(image) as ramdisks:
            for one in ramdisks:
                left_out += _ramdisk(one, folder)
    except OSError as problem:
        raise OutputError(
            f"cannot write below `{on_disk(folder)}`: {problem.strerror}"
        ) from problem
    return left_out


def _ramdisk(found: Contents, folder: pathlib.Path) -> list[str]:
    name = f"ramdisk-{found.number}"
    (folder / name).mkdir(mode=0o700)
    root = os.open(folder / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    left_out = []
    made: list[tuple[bytes, int]] = []
    written: dict[tuple[bytes, ...], bytes] = {}
    try:
        for path, item in found.items.items():
            _check(path)
            if item.kind not in ("file", "folder", "link"):
                left_out.append(f"{name}/{spelled(path)} ({item.kind})")
                continue
            with _parent(root, path) as parent:
                _make(parent, path.rpartition(b"/")[2], item, root, written)
            if item.kind == "folder":
                made.append((path, stat.S_IMODE(item.mode) & 0o777))
        # Last, so that a folder that nobody may write to can be filled.
        for path, mode in reversed(made):
            with _parent(root, path) as parent:
                _set_mode(parent, path.rpartition(b"/")[2], mode)
    finally:
        os.close(root)
    listed = {spelled(path): _owner(item) for path, item in found.items.items()}
    (folder / f"{name}.json").write_text(json.dumps(listed, indent=1, ensure_ascii=False) + "\n")
    return left_out


def _check(path: bytes) -> None:
    parts = path.split(b"/")
    if any(part in (b"", b".", b"..") or b"\0" in part for part in parts):
        raise MalformedImage(f"ramdisk entry `{shown(path)}` leads out of the image")


@contextlib.contextmanager
def _parent(root: int, path: bytes) -> Iterator[int]:
    """The folder of a path, opened part by part without following a link; made where it lacks."""
    at = os.dup(root)
    try:
        for part in path.split(b"/")[:-1]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=at)
            try:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            except OSError as problem:
                if problem.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                raise MalformedImage(
                    f"ramdisk entry `{shown(path)}` lies in something that is no folder"
                ) from problem
            os.close(at)
            at = inner
        yield at
    finally:
        os.close(at)


def _make(
    parent: int, name: bytes, item: Item, root: int, written: dict[tuple[bytes, ...], bytes]
) -> None:
    try:
        if item.kind == "folder":
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent)
        elif item.kind == "link":
            os.symlink(bytes(item.data), name, dir_fd=parent)
        elif item.names in written and len(item.names) > 1:
            os.link(written[item.names], name, src_dir_fd=root, dst_dir_fd=parent)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(name, flags, 0o600, dir_fd=parent), "wb") as file:
                file.write(item.data)
                os.fchmod(file.fileno(), stat.S_IMODE(item.mode) & 0o777)
            # Its folders were opened without following a link, and nothing takes their place.
            written[item.names] = item.path
    except FileExistsError:
        raise MalformedImage(
            f"ramdisk entry `{shown(item.path)}` is there already, spelled otherwise"
        ) from None


def _set_mode(parent: int, name: bytes, mode: int) -> None:
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        os.fchmod(folder, mode)
    finally:
        os.close(folder)


def _owner(item: Item) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "mode": f"{stat.S_IMODE(item.mode):04o}",
        "uid": item.uid,
        "gid": item.gid,
        "mtime": item.mtime,
    }


_SECTIONS = {
    Kind.KERNEL: "kernel",
    Kind.CMDLINE: "cmdline",
    Kind.METADATA: "metadata.json",
    Kind.SIGNATURE: "signature.cbor",
}
