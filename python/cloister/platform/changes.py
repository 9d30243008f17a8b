"""News that the store changed: at once within this process, within half a second across processes.

SQLite tells nobody about a write, so a waiter also looks by itself: that is how an API key that
`cloister key revoke` ends in another process leaves a running enclave.
"""

import threading
import time
from collections.abc import Callable


class Changes:
    """Wakes those who wait for a change of the store. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._generation = 0
        self._closed = False

    def announce(self) -> None:
        """Something was committed."""
        with self._condition:
            self._generation += 1
            self._condition.notify_all()

    def close(self) -> None:
        """Ends every wait, now and later."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def wait_until(self, is_true: Callable[[], bool], timeout_s: float) -> bool:
        """Blocks until ``is_true`` says so, for ``timeout_s`` seconds at most, or until closed.

        ``is_true`` is called without a lock held: at the start, after each announcement, and every
        :data:`LOOK_SECONDS`.

        Returns:
            What ``is_true`` said last.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            with self._condition:
                seen = self._generation
            if is_true():
                return True
            with self._condition:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or self._closed:
                    return False
                if self._generation == seen:
                    self._condition.wait(min(remaining, LOOK_SECONDS))


LOOK_SECONDS = 0.5
