"""How a build's stages look: a bar with bytes and seconds on a terminal, else a line a stage.

The bar is that of the library that typer brings. It goes when its stage ends, and the same line
stays in its place as everywhere else, so that a terminal and a log say the same. Nothing is decided
about what a stage is: :mod:`cloister.build.progress` is what is implemented here.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any


class StageLines:
    """Tells stages by a line each, when they end.

    Args:
        note: Says a line.
        detail: Says a line to whoever wants to know more.
    """

    def __init__(self, note: Callable[[str], None], detail: Callable[[str], None]) -> None:
        self._note = note
        self._detail = detail

    @contextlib.contextmanager
    def stage(self, label: str, *, size: int | None = None) -> Iterator[Callable[[int], None]]:
        """A stage."""
        self._detail(f"{label} …")
        started = time.monotonic()
        counted = _Counted()
        with self._shown(label, size) as told:

            def advanced(count: int) -> None:
                told(counted.plus(count))

            yield advanced
        seconds = f"{time.monotonic() - started:.2f} s"
        passed = size if size is not None else counted.bytes
        self._note(f"{label} ({in_units(passed)}, {seconds})" if passed else f"{label} ({seconds})")

    def tell(self, line: str) -> None:
        """A line of a builder."""
        self._note(line)

    @contextlib.contextmanager
    def _shown(self, label: str, size: int | None) -> Iterator[Callable[[int], object]]:  # noqa: ARG002 - for whoever shows it
        yield lambda _: None


class StageBars(StageLines):
    """Tells stages by a bar each while they last, and by a line when they end.

    Args:
        note: Says a line.
        detail: Says a line to whoever wants to know more.
        has_color: The bar is in color.
    """

    def __init__(
        self, note: Callable[[str], None], detail: Callable[[str], None], *, has_color: bool
    ) -> None:
        super().__init__(note, detail)
        self._has_color = has_color
        self._bar: Any = None

    def tell(self, line: str) -> None:
        """A line of a builder, above the bar if there is one."""
        if self._bar is None:
            super().tell(line)
        else:
            style = "dim" if self._has_color else None
            self._bar.console.print(line, style=style, markup=False, highlight=False)

    @contextlib.contextmanager
    def _shown(self, label: str, size: int | None) -> Iterator[Callable[[int], object]]:
        with _bar(label, size, has_color=self._has_color) as (bar, told):
            self._bar = bar
            try:
                yield told
            finally:
                self._bar = None


@contextlib.contextmanager
def _bar(
    label: str, size: int | None, *, has_color: bool
) -> Iterator[tuple[Any, Callable[[int], object]]]:
    """A bar; ``None`` where the cursor cannot be moved.

    The library is imported here, for it takes its time.
    """
    from rich import progress  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    columns: list[progress.ProgressColumn] = [
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}", style="none", markup=False),
    ]
    if size is not None:
        columns.append(progress.BarColumn())
    columns.append(progress.TextColumn("{task.fields[bytes]}", style="none", markup=False))
    columns.append(progress.TextColumn("{task.elapsed:.0f} s", style="none", markup=False))
    console = Console(stderr=True, no_color=not has_color)
    if console.is_dumb_terminal:
        yield None, lambda _: None
        return
    of = "" if size is None else f" of {in_units(size)}"
    try:
        with progress.Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(label, total=size, bytes=f"0 bytes{of}" if of else "")

            def told(passed: int) -> None:
                bar.update(task, completed=passed, bytes=f"{in_units(passed)}{of}")

            yield bar, told
    finally:
        # Ctrl-C while the bar begins finds the cursor hidden and nobody who shows it again.
        console.show_cursor()


class _Counted:
    """Bytes that several threads count."""

    def __init__(self) -> None:
        self.bytes = 0
        self._lock = threading.Lock()

    def plus(self, count: int) -> int:
        with self._lock:
            self.bytes += count
            return self.bytes


def in_units(count: int) -> str:
    """A number of bytes as people read it."""
    amount = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if amount < KIB:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= KIB
    return f"{amount:.1f} GiB"


KIB = 1024
