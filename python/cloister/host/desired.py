"""What a platform says is to run of an enclave, asked every few seconds on a thread of its own.

A platform that is slow, silent or away keeps nobody waiting who looks: there is what it said last.
"""

import datetime as dt
import threading
from collections.abc import Callable, Sequence

from cloister.host.ports import ActiveDeployment


class Desired:
    """Asks from :meth:`start` until :meth:`stop`.

    Args:
        ask: Asks the platform; raises when it does not say.
        every: Time between two questions.
        changed: Told on that thread when there is something to look at.
    """

    def __init__(
        self,
        ask: Callable[[], Sequence[ActiveDeployment]],
        *,
        every: dt.timedelta,
        changed: Callable[[], None],
    ) -> None:
        self._ask = ask
        self._every_s = every.total_seconds()
        self._changed = changed
        self._stopping = threading.Event()
        self.deployments: tuple[ActiveDeployment, ...] | None = None
        """What it said last, the newest first; ``None``: it has never said."""
        self.problem: str | None = None
        """Why it did not say when it was asked last; ``None``: it did, or was not asked yet."""
        self.kind: str | None = None
        """What kind of problem it was."""
        # A call in flight ends by itself: nobody waits for it at the end.
        self._thread = threading.Thread(target=self._run, name="desired", daemon=True)

    def start(self) -> None:
        """Begins to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Asks no more."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            before = (self.deployments, self.problem)
            try:
                self.deployments = tuple(self._ask())
                self.problem = self.kind = None
            except Exception as problem:  # noqa: BLE001 - whatever it is, it did not say
                self.kind = type(problem).__name__
                # A refusal too: a token that was revoked ends no enclave, its bundle does.
                self.problem = f"{problem}" or type(problem).__name__
            if (self.deployments, self.problem) != before:
                self._changed()
            self._stopping.wait(self._every_s)
