"""What an enclave has proved up to now, and whether a connection may be used. No I/O, no clock.

Documents are kept by the TLS key they are bound to, so replicas with keys of their own do not push
each other out, and a document that does not verify never replaces one that did.
"""

import datetime as dt
import threading
from collections import OrderedDict

from cloister import attest
from cloister.errors import AttestationError, BindingMismatch


class Core:
    """The documents of one enclave. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._documents: OrderedDict[bytes, bytes] = OrderedDict()

    def offer(
        self, document: bytes, *, spki: bytes, policy: attest.Policy, now: dt.datetime
    ) -> attest.Claims:
        """Takes a document that came over a connection with the key ``spki``, if it verifies.

        Raises:
            AttestationError: It does not; what was known before stays.
        """
        claims = attest.verify(document, policy, now=now, user_data=spki)
        with self._lock:
            self._documents[spki] = document
            self._documents.move_to_end(spki)
            while len(self._documents) > MAX_DOCUMENTS:
                self._documents.popitem(last=False)
        return claims

    def decide(self, spki: bytes, *, policy: attest.Policy, now: dt.datetime) -> attest.Claims:
        """Whether a connection whose leaf has the key ``spki`` may be used now.

        Raises:
            BindingMismatch: No document is known for this key.
            AttestationError: The one that is known does not verify (any more).
        """
        with self._lock:
            document = self._documents.get(spki)
        if document is None:
            raise BindingMismatch(
                "no attestation document is bound to the TLS key of this connection",
                hint="the connection does not end in an attested enclave",
            )
        try:
            return attest.verify(document, policy, now=now, user_data=spki)
        except AttestationError:
            with self._lock:
                # One that became too old, or was deployed over, has nothing left to give, but
                # only if it is still the one that failed.
                if self._documents.get(spki) is document:
                    del self._documents[spki]
            raise


MAX_DOCUMENTS = 64
"""Keys remembered for one enclave: more than it has replicas."""
