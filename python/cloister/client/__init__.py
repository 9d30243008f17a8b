"""Reach an enclave with proof: attested connections, before the first byte of a request.

:class:`Session` is a :class:`requests.Session` whose every new TLS connection is checked against
the enclave's attestation document: ordinary certificate and host name first, then that this very
TLS key is held by an enclave with the measurements you accept. A check that fails raises an
:class:`~cloister.errors.AttestationError`, and nothing was sent.

:class:`Attestor` is the same check for other transports: give it the certificate of a connection.
:func:`attest` fetches one document and verifies it. Verification itself is
:mod:`cloister.attest`'s.
"""

from cloister.client.attestor import Attestor, Freshness
from cloister.client.core import Core
from cloister.client.enclave_url import EnclaveUrl
from cloister.client.fetch import Fetched, Fetcher
from cloister.client.once import Attested, attest
from cloister.client.pcr_source import PcrSource
from cloister.client.session import Session

__all__ = [
    "Attested",
    "Attestor",
    "Core",
    "EnclaveUrl",
    "Fetched",
    "Fetcher",
    "Freshness",
    "PcrSource",
    "Session",
    "attest",
]
