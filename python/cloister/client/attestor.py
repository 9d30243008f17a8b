"""Whether a connection may be used: the core, with a clock, a fetcher and a thread that refreshes.

A check that fails with what is known asks once more, for measurements and a document, and then
decides. A background refresh that fails changes nothing and does not stop the next one.
"""

import datetime as dt
import enum
import logging
import secrets
import threading
import weakref
from collections.abc import Callable

from cloister import attest
from cloister.client.core import Core
from cloister.client.fetch import Fetcher
from cloister.client.pcr_source import PcrSource
from cloister.errors import AttestationError, CloisterError

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
    """Checks connections to one enclave. Safe to share between threads.

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
        self._fetching = threading.Lock()
        self._generation = 0
        self._refresh_every = refresh_every
        self._starting = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def check(self, certificate: bytes) -> attest.Claims:
        """What the enclave behind a connection proved.

        Args:
            certificate: Leaf of the connection in DER, after the ordinary TLS checks.

        Raises:
            AttestationError: It did not; the connection must not be used.
            TransportError: A document could not be fetched.
            PolicyError: There are no measurements.
        """
        spki = attest.subject_public_key_info(certificate)
        if self._freshness is Freshness.PER_CONNECTION:
            return self._fresh(spki)
        self._start()
        generation = self._generation
        try:
            return self._core.decide(spki, policy=self._source.policy(), now=self._clock())
        except AttestationError as first:
            self._refresh_after(first, generation)
        return self._core.decide(spki, policy=self._source.policy(), now=self._clock())

    def refresh(self) -> None:
        """Asks for measurements and a document now.

        Raises:
            CloisterError: One of them is bad or could not be had; what was known stays.
        """
        problem = self._renew()
        if problem is not None:
            raise problem

    def close(self) -> None:
        """Ends the background thread."""
        self._stop.set()
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=self._fetcher.timeout_seconds + 1)

    def _renew(self) -> CloisterError | None:
        """Measurements, then a document; returns why the last good measurements had to do."""
        problem = None
        try:
            self._source.refresh()
        except CloisterError as failed:
            problem = failed
        policy = self._source.policy()
        fetched = self._fetcher.fetch()
        self._core.offer(fetched.document, spki=fetched.spki, policy=policy, now=self._clock())
        return problem

    def _refresh_after(self, first: AttestationError, generation: int) -> None:
        """One refresh for all the checks that failed before it began."""
        with self._fetching:
            if self._generation != generation:
                return
            try:
                problem = self._renew()
            except CloisterError as second:
                raise second from first
            if problem is not None:
                _log.warning("the last good measurements are used: %s", problem)
            self._generation += 1

    def _fresh(self, spki: bytes) -> attest.Claims:
        nonce = secrets.token_bytes(NONCE_BYTES)
        self._source.refresh()
        fetched = self._fetcher.fetch(nonce=nonce)
        return attest.verify(
            fetched.document,
            self._source.policy(),
            now=self._clock(),
            nonce=nonce,
            user_data=spki,
        )

    def _start(self) -> None:
        if not self._refresh_every:
            return
        with self._starting:
            if self._thread is not None or self._stop.is_set():
                return
            self._thread = threading.Thread(
                target=_keep_fresh,
                args=(weakref.ref(self), self._stop, self._refresh_every.total_seconds()),
                name="cloister-attestation",
                daemon=True,
            )
            self._thread.start()


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
