"""What an enclave says of itself on its health port, asked every second.

The enclave's word about its own state, and the host's only eye on it. No answer is not health.
"""

import dataclasses
import datetime as dt
import http
import json
import threading
from collections.abc import Callable
from typing import Any

from cloister._native import hostplane
from cloister.errors import TransportError

INTERVAL = dt.timedelta(seconds=1)
TIMEOUT = dt.timedelta(seconds=1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """One answer.

    Args:
        ready: The enclave says it serves and its process is healthy.
        state: ``starting``, ``provisioning``, ``ready``, ``draining``, ``failed``, or ``unknown``
            when there was no answer.
        reason: Why it is not ready, in the enclave's words or ours.
        details: The whole answer.
    """

    ready: bool
    state: str
    reason: str | None
    details: dict[str, Any] = dataclasses.field(default_factory=dict)


_STATES = frozenset({"starting", "provisioning", "ready", "draining", "failed"})


def ask(address: str, *, timeout: dt.timedelta = TIMEOUT) -> Health:
    """Asks once. Never raises: what went wrong is the reason."""
    try:
        status, body = hostplane.request(address, "GET", "/health", timeout=timeout)
        answer = json.loads(body)
    except (OSError, ValueError, RecursionError) as problem:
        return Health(ready=False, state="unknown", reason=f"no answer: {_why(problem)}")
    state = answer.get("state") if isinstance(answer, dict) else None
    if state not in _STATES:
        return Health(ready=False, state="unknown", reason="the answer is not a health report")
    reason = answer.get("reason")
    return Health(
        ready=status == http.HTTPStatus.OK and state == "ready",
        state=state,
        reason=_printable(reason) if isinstance(reason, str) else None,
        details=answer,
    )


def metrics(address: str, *, timeout: dt.timedelta = TIMEOUT) -> bytes | None:
    """What the enclave says on ``/metrics``, at most 1 MiB; ``None``: nothing in time."""
    try:
        status, body = hostplane.request(address, "GET", "/metrics", timeout=timeout)
    except OSError:
        return None
    return body if status == http.HTTPStatus.OK else None


def drain(address: str, *, timeout: dt.timedelta = TIMEOUT) -> None:
    """Asks the enclave to drain; it answers at once and ends later.

    Raises:
        TransportError: It did not say that it will.
    """
    try:
        status, _ = hostplane.request(address, "POST", "/v1/drain", timeout=timeout)
    except OSError as problem:
        raise TransportError(f"the enclave was not told to drain: {_why(problem)}") from problem
    if status >= http.HTTPStatus.BAD_REQUEST:
        raise TransportError(f"the enclave refused to drain: status {status}")


class Poller:
    """Asks every second on a thread of its own, from :meth:`start` to :meth:`stop`.

    Args:
        address: The enclave's health address.
        changed: Called on that thread when state or readiness changed.
        interval: Time between two questions.
    """

    def __init__(
        self,
        address: str,
        *,
        changed: Callable[[Health], None] | None = None,
        interval: dt.timedelta = INTERVAL,
    ) -> None:
        self._address = address
        self._changed = changed
        self._interval = interval
        self._news = threading.Condition()
        self._latest = Health(ready=False, state="unknown", reason="not asked yet")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health")

    @property
    def latest(self) -> Health:
        """The last answer."""
        with self._news:
            return self._latest

    def start(self) -> None:
        """Begins to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; harmless when it never began."""
        self._stopping.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def wait_ready(self, timeout: dt.timedelta) -> Health:
        """Waits until the enclave is ready or has failed, at most ``timeout``; the last answer."""
        with self._news:
            self._news.wait_for(
                lambda: self._latest.ready or self._latest.state == "failed",
                timeout.total_seconds(),
            )
            return self._latest

    def _run(self) -> None:
        while not self._stopping.is_set():
            answer = ask(self._address)
            with self._news:
                before, self._latest = self._latest, answer
                self._news.notify_all()
            if self._changed and (before.state, before.ready) != (answer.state, answer.ready):
                self._changed(answer)
            # Often until it answers for the first time, so that a start is not rounded up.
            pause = _IMPATIENT if answer.state == "unknown" else self._interval
            self._stopping.wait(min(pause, self._interval).total_seconds())


_IMPATIENT = dt.timedelta(milliseconds=50)
_MAX_REASON = 256


def _why(problem: Exception) -> str:
    if isinstance(problem, OSError):
        return problem.strerror or str(problem) or type(problem).__name__
    return "not JSON"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "�" for char in text[:_MAX_REASON])
