"""Events on their way to the platform: nobody waits for them.

A platform that is away is not worth an enclave. Events are told in order, by one thread; while the
platform is away the newest are kept.
"""

import collections
import threading
import uuid
from collections.abc import Callable

from cloister.errors import CloisterError, TransportError

MAX_KEPT = 256
PAUSE_SECONDS = 5.0


class Reporter:
    """Tells the platform of events in the background, until :meth:`stop`.

    Args:
        record: Tells the platform; raises when it does not take it.
    """

    def __init__(self, record: Callable[[uuid.UUID, str, str], None]) -> None:
        self._record = record
        self._kept: collections.deque[tuple[uuid.UUID, str, str]] = collections.deque(
            maxlen=MAX_KEPT
        )
        self._news = threading.Condition()
        self._is_stopping = False
        self.lost = 0
        """Events that made room for newer ones, or that the platform did not take."""
        self._thread = threading.Thread(target=self._run, name="events")

    def start(self) -> None:
        """Begins to tell."""
        self._thread.start()

    def add(self, enclave: uuid.UUID, kind: str, message: str) -> None:
        """Takes an event; returns at once."""
        with self._news:
            self.lost += len(self._kept) == MAX_KEPT
            self._kept.append((enclave, kind, message))
            self._news.notify()

    def stop(self) -> None:
        """Tries to tell what is left, once, and ends."""
        with self._news:
            self._is_stopping = True
            self._news.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._kept or self._is_stopping)
                if not self._kept:
                    return
                event = self._kept[0]
            is_away = self._tell(event)
            with self._news:
                if is_away and self._is_stopping:
                    self.lost += len(self._kept)
                    return
                if is_away:
                    self._news.wait_for(lambda: self._is_stopping, PAUSE_SECONDS)
                elif self._kept and self._kept[0] is event:
                    self._kept.popleft()

    def _tell(self, event: tuple[uuid.UUID, str, str]) -> bool:
        """Tells of one event; whether the platform is away."""
        try:
            self._record(*event)
        except TransportError:
            return True
        except CloisterError:
            self.lost += 1  # what it refuses now it refuses again
        return False
