"""Reach an enclave with proof: attested connections, before the first byte of a request.

On every new TLS connection comes the ordinary check of certificate and host name first, then that
this very TLS key is held by an enclave with the measurements you accept. A check that fails raises
an :class:`~cloister.errors.AttestationError`, and nothing was sent.

- :class:`Session` is a :class:`requests.Session`.
- :class:`Enclave` is one enclave for the other transports: those of ``httpx`` in
  :mod:`cloister.client.httpx_transport`, :func:`connect` for a socket and :func:`open_connection`
  for asyncio.
- :class:`Attestor` is the same check for a transport of your own: give it the certificate of a
  connection.
- :func:`attest` fetches one document and verifies it.

:class:`Core` decides; it has no I/O and no clock. Verification itself is :mod:`cloister.attest`'s.
"""

from cloister.client.attestor import Attestor, Freshness
from cloister.client.core import Ask, Core
from cloister.client.enclave import Enclave
from cloister.client.enclave_url import EnclaveUrl
from cloister.client.fetch import Fetched, Fetcher
from cloister.client.once import Attested, attest
from cloister.client.pcr_source import PcrSource
from cloister.client.session import Session
from cloister.client.sockets import connect, open_connection

__all__ = [
    "Ask",
    "Attested",
    "Attestor",
    "Core",
    "Enclave",
    "EnclaveUrl",
    "Fetched",
    "Fetcher",
    "Freshness",
    "PcrSource",
    "Session",
    "attest",
    "connect",
    "open_connection",
]
