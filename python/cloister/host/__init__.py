"""The control plane: what runs on the untrusted machine around enclaves.

It carries bytes it cannot read and answers an enclave's calls with what the platform sealed. It
holds no plaintext and no private half; :mod:`cloister.host.production` refuses a state that does.

:class:`~cloister.host.relay.Relay` moves client connections, :func:`~cloister.host.agent.agent_app`
answers the enclave, :class:`~cloister.host.supervisor.Host` holds both together for one enclave.
Names are imported when they are used, for a relay needs no web framework.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloister.host.agent import agent_app
    from cloister.host.certificates import DevelopmentCa
    from cloister.host.relay import Relay
    from cloister.host.supervisor import Host, HostOptions

__all__ = ["DevelopmentCa", "Host", "HostOptions", "Relay", "agent_app"]

_HOMES = {
    "DevelopmentCa": "cloister.host.certificates",
    "Host": "cloister.host.supervisor",
    "HostOptions": "cloister.host.supervisor",
    "Relay": "cloister.host.relay",
    "agent_app": "cloister.host.agent",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
