"""What an enclave has proved up to now, and whether a connection may be used. No I/O, no clock.

A check begins with what is known. When that does not do, the core says what to ask
(:class:`Ask`): measurements and a document, made for a nonce or not. Whoever drives it asks, waits
as its kind of program waits, and lets the core finish. Threads and event loops differ in the
waiting alone.

Documents are kept by the TLS key they are bound to, so replicas with keys of their own do not push
each other out, and a document that does not verify never replaces one that did.

Reading needs no lock; :meth:`Core.offer` and :meth:`Core.failed` are for one caller at a time.
"""

import dataclasses
import datetime as dt
import hashlib
from typing import NoReturn

from cloister import attest
from cloister.errors import AttestationError, BindingMismatch, CloisterError, PolicyError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a check needs before it can end: measurements, then a document.

    Args:
        spki: ``SubjectPublicKeyInfo`` of the connection's leaf.
        nonce: What the document has to be made for; ``None`` for the enclave's current one, which
            serves every check that waits.
        generation: How many answers the core had when it asked.
        because: Why what is known does not do; ``None`` when nothing is known.
    """

    spki: bytes
    nonce: bytes | None
    generation: int
    because: AttestationError | None


class Core:
    """The documents of one enclave."""

    def __init__(self) -> None:
        self._documents: dict[bytes, bytes] = {}
        self._failure: CloisterError | None = None
        self._generation = 0

    def begin(
        self, spki: bytes, *, policy: attest.Policy | None, nonce: bytes | None, now: dt.datetime
    ) -> attest.Claims | Ask:
        """Decides on a new connection, or says what to ask first.

        Args:
            spki: ``SubjectPublicKeyInfo`` of the connection's leaf.
            policy: The last good one; ``None`` when there has been none yet.
            nonce: New random bytes to have a document made for this connection; ``None`` to take
                one that is known.
            now: The verifier's time.
        """
        because = None
        if policy is not None and nonce is None:
            try:
                return self._decide(spki, policy, now)
            except AttestationError as problem:
                because = problem
        return Ask(spki=spki, nonce=nonce, generation=self._generation, because=because)

    def is_open(self, ask: Ask) -> bool:
        """Whether nobody has answered since ``ask``; one with a nonce is its own alone."""
        return ask.nonce is not None or ask.generation == self._generation

    def offer(
        self, document: bytes, *, spki: bytes, policy: attest.Policy, now: dt.datetime
    ) -> attest.Claims:
        """Takes a document that came over a connection with the key ``spki``, if it verifies.

        Raises:
            AttestationError: It does not; what was known before stays.
        """
        claims = attest.verify(document, policy, now=now, user_data=spki)
        kept = {key: value for key, value in self._documents.items() if key != spki}
        while len(kept) >= MAX_DOCUMENTS:
            kept.pop(next(iter(kept)))
        # Replaced as a whole, so that whoever reads sees the one or the other.
        self._documents = {**kept, spki: document}
        self._failure = None
        self._generation += 1
        return claims

    def failed(self, problem: CloisterError) -> None:
        """Notes that an answer could not be had, for all who wait for it."""
        self._failure = problem
        self._generation += 1

    def finish(
        self, ask: Ask, *, document: bytes | None, policy: attest.Policy | None, now: dt.datetime
    ) -> attest.Claims:
        """Decides after an answer, for good.

        Args:
            ask: What was asked.
            document: The one made for the nonce of ``ask``; ``None`` without one.
            policy: The last good one.
            now: The verifier's time.

        Raises:
            CloisterError: The answer could not be had.
            PolicyError: There are no measurements.
            BindingMismatch: The document is bound to another TLS key, or none is to this one.
            AttestationError: The document does not verify.
        """
        if document is None and self._failure is not None:
            again(self._failure, ask.because)
        if policy is None:
            raise PolicyError("no measurements: a policy must name what it accepts")
        if document is None:
            return self._decide(ask.spki, policy, now)
        return attest.verify(document, policy, now=now, nonce=ask.nonce, user_data=ask.spki)

    def _decide(self, spki: bytes, policy: attest.Policy, now: dt.datetime) -> attest.Claims:
        documents = self._documents
        if spki not in documents:
            found = ", ".join(map(_short, documents)) or "none"
            raise BindingMismatch(
                "no attestation document is bound to the TLS key of this connection: expected one "
                f"for SHA-384 {_short(spki)}, keys with a document: {found}",
                hint="the connection does not end in the attested enclave; is a proxy between that "
                "ends TLS, or do replicas have keys of their own?",
            )
        return attest.verify(documents[spki], policy, now=now, user_data=spki)


def again(problem: CloisterError, because: AttestationError | None) -> NoReturn:
    """Raises an error that another thread met, as one of this thread's own."""
    copy = type(problem)(problem.message, hint=problem.hint)
    raise copy from (because or problem)


def _short(spki: bytes) -> str:
    return hashlib.sha384(spki).hexdigest()[:16]


MAX_DOCUMENTS = 64
"""Keys remembered for one enclave: more than it has replicas."""
