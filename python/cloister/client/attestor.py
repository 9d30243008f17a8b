"""Drives the core of one enclave: a clock, a fetcher, a source of measurements, and a thread.

:meth:`Attestor.begin` waits for nothing, and :meth:`Attestor.answer` for the network, within the
fetcher's timeout; so an event loop runs the one itself and the other on a thread.
:meth:`Attestor.check` is both in a row. A check that fails with what is known asks once more and
then decides; all that wait share one answer. A background refresh that fails changes nothing and
does not stop the next one.

A forked child has locks and a thread of its own.
"""

import datetime as dt
import enum
import logging
import os
import secrets
import threading
import weakref
from collections.abc import Callable

from cloister import attest
from cloister.client.core import Ask, Core, again
from cloister.client.fetch import Fetcher
from cloister.client.pcr_source import PcrSource
from cloister.errors import CloisterError

_log = logging.getLogger(__name__)


class Freshness(enum.Enum):
    """How new the proof of a new connection has to be."""

    CACHED = "cached"
    """A document of the last minutes, bound to the connection's key."""
    PER_CONNECTION = "per-connection"
    """A document made for a nonce of this connection: one more round trip each."""


def utc_now() -> dt.datetime:
    """The clock, unless another one is given."""
    return dt.datetime.now(dt.UTC)


class Attestor:
    """Checks connections to one enclave. Safe to share between threads and with forked children.

    Args:
        source: Accepted measurements and the rest of the policy.
        fetcher: Where documents come from.
        freshness: How new a proof has to be.
        refresh_every: Pause between two background refreshes; zero for none.
        clock: The verifier's time.
    """

    def __init__(
        self,
        source: PcrSource,
        fetcher: Fetcher,
        *,
        freshness: Freshness = Freshness.CACHED,
        refresh_every: dt.timedelta = dt.timedelta(minutes=5),
        clock: Callable[[], dt.datetime] = utc_now,
    ) -> None:
        self._source = source
        self._fetcher = fetcher
        self._freshness = freshness
        self._clock = clock
        self._core = Core()
        self._refresh_every = refresh_every
        self._processes: dict[int, _Process] = {}

    def check(self, certificate: bytes) -> attest.Claims:
        """What the enclave behind a connection proved; waits for a document when it has to.

        Args:
            certificate: Leaf of the connection in DER, after the ordinary TLS checks.

        Raises:
            AttestationError: It did not; the connection must not be used.
            TransportError: A document could not be fetched.
            PolicyError: There are no measurements.
        """
        found = self.begin(certificate)
        return self.answer(found) if isinstance(found, Ask) else found

    def begin(self, certificate: bytes) -> attest.Claims | Ask:
        """Decides with what is known, or says what to ask; waits for nothing."""
        nonce = None
        if self._freshness is Freshness.PER_CONNECTION:
            nonce = secrets.token_bytes(NONCE_BYTES)
        else:
            self._start()
        spki = attest.subject_public_key_info(certificate)
        return self._core.begin(spki, policy=self._source.known, nonce=nonce, now=self._clock())

    def answer(self, ask: Ask) -> attest.Claims:
        """Asks, and decides; waits for the network.

        Raises:
            CloisterError: As :meth:`check`.
        """
        document = None
        if ask.nonce is not None:
            self._ask_measurements()
            document = self._fetcher.fetch(nonce=ask.nonce).document
        else:
            with self._here().fetching:
                if self._core.is_open(ask):
                    self._renew(ask)
        return self._core.finish(
            ask, document=document, policy=self._source.known, now=self._clock()
        )

    def refresh(self) -> None:
        """Asks for measurements and a document now.

        Raises:
            CloisterError: One of them is bad or could not be had; what was known stays.
        """
        with self._here().fetching:
            problem = self._renew(None)
        if problem is not None:
            raise problem

    def close(self) -> None:
        """Ends the background thread."""
        here = self._here()
        here.stop.set()
        with here.starting:
            thread, here.thread = here.thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=self._fetcher.timeout_seconds + 1)

    def _renew(self, ask: Ask | None) -> CloisterError | None:
        """Measurements, then a document; returns why the last good measurements had to do."""
        try:
            problem = self._ask_measurements()
            fetched = self._fetcher.fetch()
            self._core.offer(
                fetched.document,
                spki=fetched.spki,
                policy=self._source.policy(),
                now=self._clock(),
            )
        except CloisterError as failed:
            self._core.failed(failed)
            if ask is not None:
                again(failed, ask.because)
            raise
        return problem

    def _ask_measurements(self) -> CloisterError | None:
        """Asks for measurements; the last good ones do, and the reason is returned.

        Raises:
            PolicyError: There have been none yet.
        """
        try:
            self._source.refresh()
        except CloisterError as problem:
            if self._source.known is None:
                raise
            _log.warning("the last good measurements are used: %s", problem)
            return problem
        return None

    def _here(self) -> "_Process":
        """What belongs to this process: a lock that was held at a fork is held for ever."""
        return self._processes.setdefault(os.getpid(), _Process())

    def _start(self) -> None:
        if not self._refresh_every:
            return
        here = self._here()
        with here.starting:
            if here.thread is not None or here.stop.is_set():
                return
            stop = here.stop
            here.thread = threading.Thread(
                target=_keep_fresh,
                args=(
                    weakref.ref(self, lambda _: stop.set()),
                    stop,
                    self._refresh_every.total_seconds(),
                ),
                name="cloister-attestation",
                daemon=True,
            )
            here.thread.start()


class _Process:
    """Locks and thread of one process."""

    def __init__(self) -> None:
        self.fetching = threading.Lock()
        self.starting = threading.Lock()
        self.stop = threading.Event()
        self.thread: threading.Thread | None = None


def _keep_fresh(
    attestor: weakref.ref[Attestor], stop: threading.Event, pause_seconds: float
) -> None:
    """Refreshes until told to stop, or until nobody holds the attestor any more."""
    while not stop.wait(pause_seconds):
        alive = attestor()
        if alive is None:
            return
        try:
            alive.refresh()
        except Exception as problem:  # noqa: BLE001 - whatever it is, the next one may succeed
            _log.warning("attestation was not refreshed: %s", problem)
        del alive


NONCE_BYTES = 32
