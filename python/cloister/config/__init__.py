"""``enclave.toml``: read it, write single settings back, and what of it goes into the image.

:func:`load` is strict: it returns a whole, checked :class:`EnclaveToml` or raises
:class:`~cloister.errors.ConfigError` with file, line, column, what was expected and a hint.
:meth:`EnclaveToml.attested` is the part that is measured. :func:`edit` changes settings in place
and keeps comments, order and blank lines. :func:`load_host` reads ``host.toml``, as strictly.
"""

from cloister.config.attested import canonical_json, scheme
from cloister.config.edit import Editor, edit
from cloister.config.host import EnclaveOfHost, HostToml, load_host, loads_host
from cloister.config.load import load, loads
from cloister.config.schema import (
    VERSION,
    Acceptor,
    Attestation,
    AttestationCors,
    Egress,
    EnclaveToml,
    Env,
    Healthcheck,
    Kernel,
    Limits,
    Resources,
    Scaling,
    Service,
    Signing,
    Tls,
    Trust,
)

__all__ = [
    "VERSION",
    "Acceptor",
    "Attestation",
    "AttestationCors",
    "Editor",
    "Egress",
    "EnclaveOfHost",
    "EnclaveToml",
    "Env",
    "Healthcheck",
    "HostToml",
    "Kernel",
    "Limits",
    "Resources",
    "Scaling",
    "Service",
    "Signing",
    "Tls",
    "Trust",
    "canonical_json",
    "edit",
    "load",
    "load_host",
    "loads",
    "loads_host",
    "scheme",
]
