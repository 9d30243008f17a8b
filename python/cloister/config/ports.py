"""Ports of the enclave's loopback that are ours, as in `rust/wire`, ``ports.rs``."""

from cloister.errors import ConfigError

DEFAULT_SERVICE = 8008
"""Port of the user process when neither `[service] port` nor EXPOSE names one."""
INTERNAL_API = 9999
DNS = 53
EGRESS_REDIRECT = 4444


def reserved_by(port: int, *, is_egress_on: bool) -> str | None:
    """What reserves a port of the enclave's loopback; ``None``: nothing does."""
    if port == INTERNAL_API:
        return "the internal API"
    if is_egress_on and port == DNS:
        return "DNS, as egress is on"
    if is_egress_on and port == EGRESS_REDIRECT:
        return "egress, where redirected connections arrive"
    return None


def check(port: int, *, is_egress_on: bool, what: str) -> None:
    """Refuses a reserved port.

    Raises:
        ConfigError: It is reserved; the message says by what.
    """
    holder = reserved_by(port, is_egress_on=is_egress_on)
    if holder is not None:
        raise ConfigError(
            f"{what} {port} is reserved by {holder}",
            hint="let the application listen on another port and name it in `[service] port`",
        )
