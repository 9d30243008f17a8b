"""What a process costs: CPU time and memory of it and of all its descendants.

CPU time is that of a control group where the machine lets us make one (version 1 or 2), so that a
thread that ended still counts; else the sum over the threads that live.
"""

import contextlib
import os
import pathlib

_CPUACCT = pathlib.Path("/sys/fs/cgroup/cpuacct")  # version 1
_UNIFIED = pathlib.Path("/sys/fs/cgroup")  # version 2


class Account:
    """The account of one process tree, open from before its start.

    Args:
        name: Of the control group; this process's number is added.
    """

    def __init__(self, name: str) -> None:
        self.pid = 0
        self._group: pathlib.Path | None = None
        for parent in (_CPUACCT, _UNIFIED):
            if not ((parent / "cpuacct.usage").exists() or (parent / "cpu.stat").exists()):
                continue
            group = parent / f"cloister-bench-{os.getpid()}-{name}"
            with contextlib.suppress(OSError):
                group.mkdir()
                self._group = group
                break

    @property
    def method(self) -> str:
        """How CPU time is read, for the page."""
        if self._group is None:
            return "/proc/PID/task/*/schedstat"
        return "cgroup cpuacct.usage" if self._is_v1() else "cgroup cpu.stat"

    def enter(self) -> None:
        """Moves the calling process in: for a child between fork and exec."""
        if self._group is not None:
            (self._group / "cgroup.procs").write_text(str(os.getpid()))

    def seconds(self) -> float:
        """CPU time so far, user and system."""
        if self._group is None:
            return sum(_scheduled(pid) for pid in _tree(self.pid)) / 1e9
        if self._is_v1():
            return int((self._group / "cpuacct.usage").read_text()) / 1e9
        usage = (self._group / "cpu.stat").read_text().split()
        return int(usage[usage.index("usage_usec") + 1]) / 1e6

    def resident_mb(self) -> float:
        """Resident memory in MB (10^6 bytes); pages that processes share are divided among them."""
        total = 0
        for pid in _tree(self.pid):
            with contextlib.suppress(OSError, ValueError):
                words = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().split()
                total += int(words[words.index("Pss:") + 1]) * 1024
        return total / 1e6

    def close(self) -> None:
        """Removes the group, once its processes are gone."""
        if self._group is not None:
            with contextlib.suppress(OSError):
                self._group.rmdir()

    def _is_v1(self) -> bool:
        return self._group is not None and self._group.parent == _CPUACCT


def _scheduled(pid: int) -> int:
    total = 0
    with contextlib.suppress(OSError):
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
    return total


def _tree(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue.extend(children.get(pid, []))
    return found
