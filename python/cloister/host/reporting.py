"""Events on their way to the platform: nobody waits for them.

A platform that is away is not worth an enclave. Events are told in order, by one thread; while the
platform is away the newest of each enclave are kept.
"""

import threading
import uuid
from collections.abc import Callable

from cloister.errors import TransportError

MAX_KEPT = 64  # of one enclave
PAUSE_SECONDS = 5.0
STOP_SECONDS = 3.0
_Event = tuple[uuid.UUID, str, str]


class Reporter:
    """Tells the platform of events in the background, until :meth:`stop`.

    Args:
        record: Tells the platform; raises when it does not take it.
        pause_s: Pause while the platform is away, seconds.
        stop_s: How long an end waits for what is left to be told, seconds.
    """

    def __init__(
        self,
        record: Callable[[uuid.UUID, str, str], None],
        *,
        pause_s: float = PAUSE_SECONDS,
        stop_s: float = STOP_SECONDS,
    ) -> None:
        self._record = record
        self._pause_s = pause_s
        self._stop_s = stop_s
        self._kept: list[_Event] = []
        self._news = threading.Condition()
        self._is_stopping = False
        self._lost = 0
        # A call in flight ends by itself: nobody waits for it at the end.
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    @property
    def lost(self) -> int:
        """Events that made room for newer ones, or that the platform did not take."""
        with self._news:
            return self._lost

    def start(self) -> None:
        """Begins to tell."""
        self._thread.start()

    def add(self, enclave: uuid.UUID, kind: str, message: str) -> None:
        """Takes an event; returns at once."""
        with self._news:
            own = [event for event in self._kept if event[0] == enclave]
            if len(own) >= MAX_KEPT:
                self._kept.remove(own[0])
                self._lost += 1
            self._kept.append((enclave, kind, message))
            self._news.notify_all()

    def stop(self) -> None:
        """Lets what is left be told, for a short time, and ends. What is not told then is lost."""
        with self._news:
            self._is_stopping = True
            self._news.notify_all()
        if self._thread.ident is not None:
            self._thread.join(self._stop_s)
        with self._news:
            self._lost += len(self._kept)
            self._kept.clear()

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
                    return
                if is_away:
                    self._news.wait_for(lambda: self._is_stopping, self._pause_s)
                elif self._kept and self._kept[0] is event:
                    self._kept.pop(0)

    def _tell(self, event: _Event) -> bool:
        """Tells of one event; whether the platform is away."""
        try:
            self._record(*event)
        except TransportError:
            return True
        except Exception:  # noqa: BLE001 - what it refuses now it refuses again
            with self._news:
                self._lost += 1
        return False
