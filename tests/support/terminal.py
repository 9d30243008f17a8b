"""A program on a terminal of its own: what it draws, and real Ctrl-C."""

import contextlib
import os
import pathlib
import pty
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Self


class Terminal:
    """A program whose standard error is a terminal; a context manager that ends it.

    Args:
        command: The program and its arguments.
        folder: Where it runs.
        environment: Variables besides ours.
        has_output: Standard output is the terminal too; else it is :attr:`output`.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: pathlib.Path,
        environment: Mapping[str, str] | None = None,
        *,
        has_output: bool = True,
    ) -> None:
        self._command = list(command)
        self._folder = folder
        self._environment = dict(environment or {})
        self._has_output = has_output
        self._waited_for = 0
        self.drawn = ""
        self.output = ""

    def __enter__(self) -> Self:
        self._ours, theirs = pty.openpty()
        variables = {name: value for name, value in os.environ.items() if name not in _COLORS}
        try:
            self._process = subprocess.Popen(
                ["setsid", "--ctty", *self._command],
                cwd=self._folder,
                env=variables | {"TERM": "xterm", "COLUMNS": "120"} | self._environment,
                stdin=theirs,
                stdout=theirs if self._has_output else subprocess.PIPE,
                stderr=theirs,
            )
        finally:
            os.close(theirs)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        os.close(self._ours)

    def wait_for(self, text: str, seconds: float = 120) -> None:
        """Until it has drawn this, behind what was waited for before."""
        deadline = time.monotonic() + seconds
        while (at := self.drawn.find(text, self._waited_for)) < 0:
            assert time.monotonic() < deadline, (text, self.drawn)
            assert self._read(), (text, self.drawn)
        self._waited_for = at + len(text)

    def press_ctrl_c(self) -> None:
        """As a person does: the terminal makes it a signal."""
        os.write(self._ours, b"\x03")

    def end(self, seconds: float = 120) -> int:
        """Until it ends; its status."""
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, self.drawn
        output, _ = self._process.communicate(timeout=seconds)
        self.output = (output or b"").decode()
        return self._process.returncode

    def _read(self) -> bool:
        """Reads what is there, for a while; whether there may be more."""
        ready, _, _ = select.select([self._ours], [], [], 0.2)
        if not ready:
            return True
        # A terminal whose other end is closed says that it cannot be read.
        with contextlib.suppress(OSError):
            raw = os.read(self._ours, 1 << 16)
            self.drawn += raw.decode("utf-8", "replace")
            return bool(raw)
        return False


_COLORS = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
