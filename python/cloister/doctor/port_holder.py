"""Who listens on a TCP port, as far as this user may know (proc(5))."""

import contextlib
import pathlib


def holder_of(port: int) -> str | None:
    """Name and id of the process; ``None``: nobody, or another user's."""
    inodes = {
        fields[9]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for fields in _rows(pathlib.Path(table))
        if fields[3] == LISTENS and int(fields[1].rpartition(":")[2], 16) == port
    }
    links = {f"socket:[{inode}]" for inode in inodes}
    if not links:
        return None
    for process in pathlib.Path("/proc").iterdir():
        if process.name.isdigit() and _holds(process, links):
            with contextlib.suppress(OSError):
                name = (process / "comm").read_text(errors="replace").strip()
                shown = "".join(char if char.isprintable() else "�" for char in name)
                return f"{shown}, process {process.name}"
    return None


def _rows(table: pathlib.Path) -> list[list[str]]:
    try:
        return [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []


def _holds(process: pathlib.Path, links: set[str]) -> bool:
    with contextlib.suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                if str(descriptor.readlink()) in links:
                    return True
    return False


LISTENS = "0A"
"""TCP_LISTEN (include/net/tcp_states.h)."""
