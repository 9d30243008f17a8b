"""Lines for standard error that nobody waits for.

A terminal that is stopped, or a supervisor that does not read, would hold up whoever prints. What a
daemon says goes through a bounded queue; what finds no room is left out, and counted.
"""

import contextlib
import queue
import threading
from collections.abc import Callable

from cloister.cli import output

MAX_WAITING = 1000
LAST_SECONDS = 1.0


class Lines:
    """Prints on a thread of its own.

    Args:
        note: Prints a line.
        detail: Prints a line that only ``--verbose`` shows.
    """

    def __init__(
        self,
        *,
        note: Callable[[str], None] = output.note,
        detail: Callable[[str], None] = output.detail,
    ) -> None:
        self._note = note
        self._detail = detail
        self._waiting: queue.Queue[tuple[Callable[[str], None], str] | None] = queue.Queue(
            MAX_WAITING
        )
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
        self._thread.start()

    def say(self, text: str) -> None:
        """Takes a line; returns at once."""
        self._put((self._note, text))

    def detail(self, text: str) -> None:
        """Takes a line that only ``--verbose`` shows; returns at once."""
        self._put((self._detail, text))

    def end(self) -> None:
        """Waits for a second, at most, until all was printed."""
        self._put(None)
        self._thread.join(LAST_SECONDS)

    def _put(self, line: tuple[Callable[[str], None], str] | None) -> None:
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self._lost += 1

    def _run(self) -> None:
        while (line := self._waiting.get()) is not None:
            lost, self._lost = self._lost, 0
            # Whoever listened may be gone; enclaves are not.
            with contextlib.suppress(Exception):
                if lost:
                    self._note(f"{lost} lines were left out: nobody read them in time")
                line[0](line[1])
