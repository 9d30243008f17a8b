"""Rules between settings: what each of them allows alone and together they do not."""

import ipaddress

from cloister.config import ports
from cloister.config.schema import EnclaveToml


class Violation(Exception):
    """A rule is broken.

    Args:
        at: Path of the setting that the message points at.
        message: What is wrong.
        hint: What to do about it.
    """

    def __init__(self, at: tuple[str, ...], message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.at = at
        self.message = message
        self.hint = hint


def check(toml: EnclaveToml) -> None:
    """Checks every rule.

    Raises:
        Violation: The first rule that is broken.
    """
    for rule in (
        _passthrough,
        _proxy_protocol,
        _raw_tcp,
        _port_rules,
        _acceptor,
        _signing,
        _tls,
        _kernel,
    ):
        rule(toml)


def _passthrough(toml: EnclaveToml) -> None:
    """Without TLS in the enclave nothing is read there, so nothing can be checked or logged."""
    if toml.tls_termination:
        return
    for name in ("api_key_auth", "trx_logging"):
        if getattr(toml, name):
            raise Violation(
                ("tls_termination",),
                f"`tls_termination = false` needs `{name} = false`; it is true by default",
                f"the enclave does not see requests then: add `{name} = false`",
            )
    _health_port_of_its_own(toml, "`tls_termination = false`")


def _health_port_of_its_own(toml: EnclaveToml, beside: str) -> None:
    """A health check is a GET in clear, which the service would not answer."""
    if toml.healthcheck is not None and toml.healthcheck.port in (None, toml.service.port):
        raise Violation(
            ("healthcheck",),
            f"`healthcheck` needs a port of its own with {beside}",
            'healthcheck = { path = "/health", port = 8009 }, in clear, apart from the service;'
            " without one the enclave looks whether the service accepts connections",
        )


def _proxy_protocol(toml: EnclaveToml) -> None:
    if toml.forward_proxy_protocol and toml.tls_termination:
        raise Violation(
            ("forward_proxy_protocol",),
            "`forward_proxy_protocol = true` needs `tls_termination = false`",
            "with TLS ended in the enclave, `X-Forwarded-For` says who the client is",
        )


def _raw_tcp(toml: EnclaveToml) -> None:
    if toml.service.protocol != "tcp":
        return
    if toml.api_key_auth:
        raise Violation(
            ("service", "protocol"),
            '`[service] protocol = "tcp"` needs `api_key_auth = false`',
            "bytes that are not HTTP carry no API key: the application has to authenticate them",
        )
    _health_port_of_its_own(toml, '`[service] protocol = "tcp"`')


def _port_rules(toml: EnclaveToml) -> None:
    named = {("service", "port"): toml.service.port}
    if toml.healthcheck is not None:
        named["healthcheck", "port"] = toml.healthcheck.port
    for at, port in named.items():
        holder = port and ports.reserved_by(port, is_egress_on=toml.egress.enabled)
        if holder:
            raise Violation(
                at,
                f"`{'.'.join(at)}` {port} is reserved by {holder}",
                "choose another port, and let the application listen on it",
            )


def _acceptor(toml: EnclaveToml) -> None:
    acceptor = toml.acceptor
    if acceptor.max_concurrent_handshakes > acceptor.max_concurrent_connections:
        raise Violation(
            ("acceptor", "max_concurrent_handshakes"),
            f"`max_concurrent_handshakes` {acceptor.max_concurrent_handshakes} is more than"
            f" `max_concurrent_connections` {acceptor.max_concurrent_connections}",
            "a handshake is a connection: lower the one or raise the other",
        )


def _signing(toml: EnclaveToml) -> None:
    paths = {"certPath": toml.signing.cert_path, "keyPath": toml.signing.key_path}
    missing = [key for key, path in paths.items() if path is None]
    if len(missing) == 1:
        raise Violation(
            ("signing",),
            f"`[signing]` lacks `{missing[0]}`: a certificate and its key come together",
            "leave both out for an image that is not signed",
        )


def _tls(toml: EnclaveToml) -> None:
    if toml.tls.acme and not toml.tls.domains:
        raise Violation(
            ("tls", "acme"),
            "`[tls] acme = true` needs `domains`: a certificate is ordered for names",
            'domains = ["hello.example.com"]',
        )
    for index, domain in enumerate(toml.tls.domains):
        try:
            ipaddress.ip_address(domain)
        except ValueError:
            continue
        raise Violation(
            ("tls", "domains", str(index)), f"`tls.domains[{index}]` is an address, not a name"
        )


def _kernel(toml: EnclaveToml) -> None:
    if toml.kernel.cmdline is not None and toml.kernel.image is None:
        raise Violation(
            ("kernel", "cmdline"),
            "`[kernel] cmdline` needs `image`: an image without a kernel has no command line",
            'image = "build", and `cloister kernel build` makes it',
        )
