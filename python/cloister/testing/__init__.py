"""Enclaves for the tests of those who use or run them: offline, without root, in a moment.

- :class:`SimulatedEnclave` is the data plane of an enclave in this process, over an application of
  yours: real TLS, attestation, API keys and decryption. Its registers (PCRs) are of your choice, so
  a client attests it with the policy it has in production but for the root.
- :class:`Fault` are the ways in which an enclave lets its clients down;
  :meth:`SimulatedEnclave.failing` plays them, and :meth:`~SimulatedEnclave.redeploy`,
  :meth:`~SimulatedEnclave.rotate_tls_key` and :meth:`~SimulatedEnclave.stop` are what it does by
  itself.
- :func:`document` signs an attestation document that says whatever you like.
- :func:`handler` and :func:`wsgi` make an application of a function and of a WSGI one.

With pytest come fixtures: ``cloister_enclave`` and others (:mod:`cloister.pytest_plugin`).

**Nothing here protects any data**, and nothing of it passes for anything else: every enclave and
every :class:`Root` has a root of its own, whose key is in this process and nowhere else, and no
verifier believes it that was not given this very root (T-23).
"""

from cloister.testing.application import Asgi, Handler, Request, handler, wsgi
from cloister.testing.document import Document, Root, document
from cloister.testing.enclave import SimulatedEnclave
from cloister.testing.fault import Fault

__all__ = [
    "Asgi",
    "Document",
    "Fault",
    "Handler",
    "Request",
    "Root",
    "SimulatedEnclave",
    "document",
    "handler",
    "wsgi",
]
