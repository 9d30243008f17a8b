"""Runs a program to its end, line by line, and leaves nothing of it when that is cut short.

There is no deadline for a build: compiling may take hours, and the user sees its lines and can stop
it. Questions (:func:`ask`) have one.
"""

import contextlib
import dataclasses
import os
import pathlib
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence

from cloister.build.builders.output import Lines, clean
from cloister.errors import BuildFailed

LAST_LINES = 20
QUESTION_SECONDS = 30.0
LEAF_SECONDS = 3.0
"""How long a builder may take to end by itself after the program of its RUN was ended."""
STOP_SECONDS = 10.0
_LOOK_SECONDS = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended.

    Args:
        status: Exit status as a shell has it: 128 and the signal's number when one ended it.
        last: Its last lines, :data:`LAST_LINES` at most.
    """

    status: int
    last: tuple[str, ...]


class NoAnswer(Exception):
    """A question was not answered; the text says why."""


def run(command: Sequence[str], each: Callable[[str], None]) -> Ended:
    """Runs a program and waits for it.

    Args:
        command: Program and arguments.
        each: Called with each line of its output.

    Raises:
        BuildFailed: It cannot be started.
    """
    try:
        # A session of its own: Ctrl-C in a terminal reaches us alone, and we end it in order.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as problem:
        raise BuildFailed(
            f"`{command[0]}` cannot be started: {problem.strerror}", status=127
        ) from problem
    last: deque[str] = deque(maxlen=LAST_LINES)

    def line(text: str) -> None:
        last.append(text)
        each(text)

    try:
        _read(process, line)
    finally:
        stop(process)
        if process.stdout:
            process.stdout.close()
    status = process.returncode
    return Ended(status=128 - status if status < 0 else status, last=tuple(last))


def check(command: Sequence[str], what: str) -> None:
    """Runs a program that has to succeed.

    Raises:
        BuildFailed: It did not.
    """
    ended = run(command, lambda _: None)
    if ended.status:
        raise failure(what, ended)


def failure(what: str, ended: Ended, hint: str | None = None) -> BuildFailed:
    """The error for a program that failed: its last lines and its status."""
    shown = "".join(f"\n  {line}" for line in ended.last)
    return BuildFailed(
        f"{what} ended with status {ended.status}{':' if shown else ', without a word'}{shown}",
        status=ended.status,
        hint=hint,
    )


def ask(command: Sequence[str], seconds: float = QUESTION_SECONDS) -> str:
    """What a program answers on its standard output.

    Raises:
        NoAnswer: It failed, or took longer; with the last line it printed.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"`{command[0]}` did not answer within {seconds:g} s") from None
    except OSError as problem:
        raise NoAnswer(f"`{command[0]}` cannot be started: {problem.strerror}") from None
    if done.returncode:
        lines = [line for line in map(clean, done.stderr.splitlines()) if line]
        raise NoAnswer(lines[-1] if lines else f"it ended with status {done.returncode}")
    return done.stdout.decode("utf-8", "replace")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a program and everything it started.

    First the innermost programs, those that RUN started: the builder then sees its line fail and
    takes its container away. Only then the builder itself and its group.
    """
    until = time.monotonic() + LEAF_SECONDS
    while process.poll() is None and time.monotonic() < until:
        leaves = _leaves(process.pid)
        if leaves == [process.pid]:
            break
        for pid in leaves:
            _kill(pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_SECONDS)
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        started = _below(process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        if process.poll() is not None:
            for pid in started:
                _kill(pid, signal.SIGKILL)
    process.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _read(process: subprocess.Popen[bytes], each: Callable[[str], None]) -> None:
    """Reads until the program ended, also when something it left behind keeps the pipe open."""
    assert process.stdout is not None  # noqa: S101 - it was started with a pipe
    lines = Lines()
    os.set_blocking(process.stdout.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            has_ended = process.poll() is not None
            if not selector.select(0 if has_ended else _LOOK_SECONDS):
                if has_ended:
                    break
                continue
            data = os.read(process.stdout.fileno(), 1 << 16)
            if not data:
                break
            for line in lines.feed(data):
                each(line)
    for line in lines.rest():
        each(line)
    process.wait()


def _leaves(root: int) -> list[int]:
    """The programs below this one that started none themselves; itself when there is no other."""
    parents = _parents()
    inside = _closure(root, parents)
    busy = {parents[pid] for pid in inside if pid != root}
    return sorted(inside - busy)


def _below(root: int) -> list[int]:
    return sorted(_closure(root, _parents()) - {root})


def _closure(root: int, parents: dict[int, int]) -> set[int]:
    inside = {root}
    while more := {pid for pid, parent in parents.items() if parent in inside} - inside:
        inside |= more
    return inside


def _parents() -> dict[int, int]:
    """Parent of each process that is alive (proc(5), ``/proc/PID/stat``)."""
    parents = {}
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError):
                state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
                if state not in "ZX":
                    parents[int(folder.name)] = int(parent)
    return parents


def _kill(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
