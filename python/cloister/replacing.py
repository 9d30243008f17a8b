"""A file that is replaced whole or not at all, whatever happens meanwhile.

Written beside, made durable (fsync), renamed, and the name made durable: after a power cut there is
the old file or the new one. What is made anew each time (:mod:`cloister.build.whole_file`) does
without the wait for the disk.
"""

import contextlib
import os
import pathlib
import stat

from cloister.errors import OutputError


def replace(path: pathlib.Path, content: bytes, *, mode: int | None = None) -> None:
    """Replaces a file whole, or makes it.

    Args:
        path: The file; a link is followed.
        content: All of it.
        mode: Its permissions. Without them a file that is there keeps its own and, where permitted,
            its owner, and a new one gets 0644.

    Raises:
        OutputError: It cannot be written; it is as it was.
    """
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        before = _status(target) if mode is None else None
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if before is not None:
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                mode = stat.S_IMODE(before.st_mode)
            os.fchmod(file.fileno(), 0o644 if mode is None else mode)
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync(target.parent)
    except OSError as problem:
        raise OutputError(f"cannot write `{path}`: {problem.strerror}") from problem
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _status(path: pathlib.Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _sync(folder: pathlib.Path) -> None:
    """Makes the new name last too, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
