"""What the system says about an address, as an error a person can act on."""

import errno
import socket

from cloister._native import hostplane
from cloister.errors import CloisterError, PermissionRefused, TransportError, UsageError

LOWEST_FREE_PORT = 1024  # ip(7): ports below need CAP_NET_BIND_SERVICE


def checked(address: str, *, what: str) -> str:
    """Reads an address and writes it in its usual form.

    Args:
        address: ``tcp:HOST:PORT``, ``unix:PATH`` or ``vsock:CID:PORT``.
        what: Name of the setting, for the message.

    Raises:
        UsageError: It is none of these.
    """
    try:
        return hostplane.check_address(address)
    except ValueError as problem:
        raise UsageError(f"{what}: {problem}") from None


def check_listen(address: str) -> None:
    """Finds a port that is in use before an enclave is started for it.

    Args:
        address: ``tcp:HOST:PORT``.

    Raises:
        CloisterError: As :func:`listen_error` says.
    """
    host, _, port = address.removeprefix("tcp:").rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))
    except OSError as problem:
        raise listen_error(address, problem) from problem


def listen_error(address: str, problem: OSError) -> CloisterError:
    """Says why nobody can listen on ``address``, and what to do."""
    if problem.errno == errno.EADDRINUSE:
        return TransportError(
            f"cannot listen on {address}: the address is in use",
            hint="stop what listens there, or choose another; TCP port 0 takes any free one",
        )
    if problem.errno in {errno.EACCES, errno.EPERM}:
        return PermissionRefused(
            f"cannot listen on {address}: not permitted", hint=_permission_hint(address)
        )
    if problem.errno == errno.EADDRNOTAVAIL:
        return TransportError(
            f"cannot listen on {address}: this machine has no such address",
            hint="127.0.0.1 is this machine only, 0.0.0.0 every IPv4 address it has",
        )
    if problem.errno in {errno.ENOENT, errno.ENOTDIR}:
        return TransportError(
            f"cannot listen on {address}: there is no such folder", hint="make the folder first"
        )
    if problem.errno in {errno.EAFNOSUPPORT, errno.ENODEV}:
        return TransportError(
            f"cannot listen on {address}: this kernel has no such sockets",
            hint="vsock needs a parent instance with enclaves enabled, or the vsock module",
        )
    return TransportError(f"cannot listen on {address}: {problem.strerror or problem}")


def _permission_hint(address: str) -> str:
    port = address.rsplit(":", 1)[-1]
    if address.startswith("tcp:") and port.isdigit() and 0 < int(port) < LOWEST_FREE_PORT:
        return (
            f"ports below {LOWEST_FREE_PORT} need root, CAP_NET_BIND_SERVICE, or "
            f"`sysctl net.ipv4.ip_unprivileged_port_start={port}`"
        )
    return "choose a folder or port that this user may use"
