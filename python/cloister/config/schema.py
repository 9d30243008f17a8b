# ruff: noqa: RUF009 - `setting` makes a dataclass field; the tables it holds are frozen
"""Every setting of ``enclave.toml``, version 1: name, type, default, range.

Byte counts are bytes and times milliseconds, as in the attested configuration (`rust/wire`,
``config.rs``). Rules between settings are in :mod:`cloister.config.rules`; reading is
:mod:`cloister.config.load`'s. ``enclave.toml.example`` says what each one means to a user.
"""

import dataclasses
import pathlib
from typing import Any, ClassVar
from uuid import UUID

from cloister.config import attested
from cloister.config.grammar import (
    destination_problem,
    domain_problem,
    header_pattern_problem,
    origin_problem,
)
from cloister.config.setting import (
    Table,
    base64_key,
    boolean,
    checked_text,
    choice,
    identity,
    integer,
    many,
    setting,
    size,
    table,
    text,
)

VERSION = 1
"""The version of the file format that this program reads."""

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
_HOUR_MS = 3_600_000
_PORT = integer(1, 65_535)
_FILE = text(r"[^\0]{1,4096}", "a path")
_REGISTER = text(r"[0-9a-fA-F]{96}", "96 hexadecimal digits", hint="`cloister build` writes it")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck(Table):
    """Health check of the user process.

    Args:
        path: Asked with GET; 2xx is healthy.
        port: Asked there; ``None``: the service port.
    """

    title: ClassVar[str] = "healthcheck"
    path: str = setting(text(r"/[!-~]{0,1023}", 'a path that starts with "/"'))
    port: int | None = setting(_PORT, default=None)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Egress(Table):
    """What may leave the enclave.

    Args:
        enabled: Whether anything may.
        destinations: Names, ``*.suffix``, addresses, CIDR, each with ``:port`` or
            ``:port-port``; ``*`` is everything.
        allow_private: Whether the host may connect to addresses that are not global.
    """

    title: ClassVar[str] = "egress"
    enabled: bool = setting(boolean(), default=False)
    destinations: tuple[str, ...] = setting(
        many(checked_text("a destination", destination_problem), most=1024), default=("*",)
    )
    allow_private: bool = setting(boolean(), default=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Service(Table):
    """Where and how the user process listens.

    Args:
        port: TCP port on the enclave's loopback; ``None``: the image's single EXPOSE, else 8008.
        protocol: ``http1``, ``h2c`` or ``tcp``.
    """

    title: ClassVar[str] = "service"
    port: int | None = setting(_PORT, default=None)
    protocol: str = setting(choice("http1", "h2c", "tcp"), default="http1")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trust(Table):
    """Whose bundles are believed.

    Args:
        service_keys: One to three Ed25519 public keys, base64; empty until ``init`` wrote one.
    """

    title: ClassVar[str] = "trust"
    service_keys: tuple[str, ...] = setting(many(base64_key(), least=1, most=3), default=())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Env(Table):
    """Environment of the user process.

    Args:
        reload: What happens to it after a hot update: ``none``, ``sighup`` or ``restart``.
    """

    title: ClassVar[str] = "env"
    reload: str = setting(choice("none", "sighup", "restart"), default="none")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scaling(Table):
    """How many enclaves run; not measured.

    Args:
        desired_replicas: Number of enclaves.
    """

    title: ClassVar[str] = "scaling"
    desired_replicas: int = setting(integer(1, 1000), default=2)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Resources(Table):
    """What one enclave gets; not measured.

    Args:
        cpus: Processors.
        memory: Memory in bytes; the file may say ``"1GiB"``.
    """

    title: ClassVar[str] = "resources"
    cpus: int = setting(integer(1, 512), default=2)
    memory: int = setting(size(64 * _MIB, 16 << 40), default=_GIB)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Signing(Table):
    """The pair that signs the image; not measured itself, but PCR8 is the certificate.

    Args:
        cert_path: P-384 certificate, PEM, relative to the file.
        key_path: Its private key, PEM, relative to the file.
    """

    title: ClassVar[str] = "signing"
    cert_path: str | None = setting(_FILE, default=None, key="certPath")
    key_path: str | None = setting(_FILE, default=None, key="keyPath")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Attestation(Table):
    """Measurements of the last build; never part of the next one.

    Args:
        hash_algorithm: Always SHA-384.
        pcr0: The image.
        pcr1: Kernel and boot ramdisk.
        pcr2: The application.
        pcr8: The signing certificate; ``None``: not signed.
    """

    title: ClassVar[str] = "attestation"
    hash_algorithm: str | None = setting(
        text(r"(?i)sha-?384( \{ \.\.\. \})?", '"SHA384"'), default=None, key="HashAlgorithm"
    )
    pcr0: str | None = setting(_REGISTER, default=None, key="PCR0")
    pcr1: str | None = setting(_REGISTER, default=None, key="PCR1")
    pcr2: str | None = setting(_REGISTER, default=None, key="PCR2")
    pcr8: str | None = setting(_REGISTER, default=None, key="PCR8")

    def registers(self) -> dict[int, bytes]:
        """Index and value of each register that is written; empty before the first build."""
        values = {0: self.pcr0, 1: self.pcr1, 2: self.pcr2, 8: self.pcr8}
        return {index: bytes.fromhex(value) for index, value in values.items() if value}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AttestationCors(Table):
    """CORS of the attestation endpoint.

    Args:
        origin: ``access-control-allow-origin``.
    """

    title: ClassVar[str] = "attestation_cors"
    origin: str = setting(checked_text('"*" or an origin', origin_problem), default="*")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Acceptor(Table):
    """Connection and handshake bounds.

    Args:
        max_concurrent_connections: Connections open at once.
        max_concurrent_handshakes: TLS handshakes under way at once.
        handshake_timeout: From accept to Finished, ms.
    """

    title: ClassVar[str] = "acceptor"
    max_concurrent_connections: int = setting(integer(1, 1_000_000), default=10_000)
    max_concurrent_handshakes: int = setting(integer(1, 1_000_000), default=256)
    handshake_timeout: int = setting(integer(100, _HOUR_MS, "milliseconds"), default=10_000)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Table):
    """Every other bound: bytes for sizes, milliseconds for times.

    Args:
        head: Request head, bytes (431).
        headers: Header lines (431).
        target: Request target, bytes (414).
        chunk_extension: Extension of one chunk of a body, bytes (400).
        trailers: Trailer section of a body, bytes (400); it has at most ``headers`` lines.
        body: Request body, bytes (413); ``None``: no bound. Attested as ``max_body``.
        head_timeout: From the first byte of a head to its end, ms (408).
        body_idle: Between two reads or writes of a body, ms (408).
        keepalive_idle: Idle between two requests, ms.
        keepalive_requests: Requests on one connection; ``None``: any number.
        linger: Reading on after the last answer of a connection, ms.
        tunnel_idle: Without a byte in a WebSocket or TCP session, ms; ``None``: no bound.
        upstream_connect: Connecting to the user process, ms (502, 504).
        upstream_idle: A connection to the user process that nobody uses, ms.
        upstream_idle_connections: Such connections.
        upstream_response: Until the user process's response head is there, ms (504).
        interim_responses: Interim responses (1xx) before the final one (502).
        h2_streams: HTTP/2 concurrent streams of a connection.
        h2_resets: HTTP/2 requests that a client takes back within 10 s before they are answered.
        decrypt_buffer: Body opened whole before anything is forwarded, bytes.
        decrypt_cpu: Processor time that new ephemeral keys may take, per cent (503).
        max_token: One ``ev:`` token, bytes (422).
        max_file: One encrypted file, bytes.
        held_bytes: All held bodies together, bytes (503).
        distinct_keys_per_request: Distinct ephemeral keys in one request (422).
        max_waiting: Connections without a whole ClientHello, or whose handshake stands still.
        drain_timeout: Grace period of a drain, ms.
        log_ring: Transaction logs held while the host is away, bytes.
    """

    title: ClassVar[str] = "limits"
    head: int = setting(integer(1024, _MIB, "bytes"), default=64 * _KIB)
    headers: int = setting(integer(1, 4096), default=128)
    target: int = setting(integer(256, _MIB, "bytes"), default=32 * _KIB)
    chunk_extension: int = setting(integer(0, 64 * _KIB, "bytes"), default=_KIB)
    trailers: int = setting(integer(2, _MIB, "bytes"), default=16 * _KIB)
    body: int | None = setting(integer(1, 1 << 50, "bytes"), default=None)
    head_timeout: int = setting(integer(100, _HOUR_MS, "milliseconds"), default=10_000)
    body_idle: int = setting(integer(100, _HOUR_MS, "milliseconds"), default=30_000)
    keepalive_idle: int = setting(integer(100, _HOUR_MS, "milliseconds"), default=75_000)
    keepalive_requests: int | None = setting(integer(1, 1_000_000_000), default=None)
    linger: int = setting(integer(0, 60_000, "milliseconds"), default=1_000)
    tunnel_idle: int | None = setting(integer(100, 24 * _HOUR_MS, "milliseconds"), default=None)
    upstream_connect: int = setting(integer(10, _HOUR_MS, "milliseconds"), default=5_000)
    upstream_idle: int = setting(integer(0, _HOUR_MS, "milliseconds"), default=4_000)
    upstream_idle_connections: int = setting(integer(0, 100_000), default=256)
    upstream_response: int = setting(integer(10, 24 * _HOUR_MS, "milliseconds"), default=60_000)
    interim_responses: int = setting(integer(0, 1000), default=16)
    h2_streams: int = setting(integer(1, 100_000), default=250)
    h2_resets: int = setting(integer(1, 1_000_000), default=200)
    decrypt_buffer: int = setting(integer(0, _GIB, "bytes"), default=_MIB)
    decrypt_cpu: int = setting(integer(1, 100, "per cent"), default=50)
    max_token: int = setting(integer(256, _GIB, "bytes"), default=_MIB)
    max_file: int = setting(integer(1, 16 * _GIB, "bytes"), default=25 * _MIB)
    held_bytes: int = setting(integer(_MIB, 1 << 40, "bytes"), default=256 * _MIB)
    distinct_keys_per_request: int = setting(integer(1, 1_000_000), default=1000)
    max_waiting: int = setting(integer(1, 1_000_000), default=2000)
    drain_timeout: int = setting(integer(0, _HOUR_MS, "milliseconds"), default=30_000)
    log_ring: int = setting(integer(64 * _KIB, 16 * _GIB, "bytes"), default=64 * _MIB)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tls(Table):
    """TLS in the enclave.

    Args:
        domains: Names the certificate is for; measured.
        acme: Whether an ACME certificate is ordered for them.
        min_version: Oldest TLS version accepted: ``1.2`` or ``1.3``.
        dangerous_share_across_deployments: Whether the TLS key is shared with other images of this
            enclave that say so, too; a host can then serve an older image under a newer one's
            document.
    """

    title: ClassVar[str] = "tls"
    domains: tuple[str, ...] = setting(
        many(checked_text("a domain name in lower case", domain_problem), most=100), default=()
    )
    acme: bool = setting(boolean(), default=False)
    min_version: str = setting(choice("1.2", "1.3"), default="1.2")
    dangerous_share_across_deployments: bool = setting(boolean(), default=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kernel(Table):
    """The kernel that goes into the image; not part of the attested configuration.

    Args:
        image: A name that ``cloister kernel list`` shows, ``build``, ``fetch`` or ``aws``, else the
            path of a bzImage, relative to the file; ``None``: an image for the sandbox alone.
        cmdline: Its command line; ``None``: the one that suits the kernel.
    """

    title: ClassVar[str] = "kernel"
    image: str | None = setting(_FILE, default=None)
    cmdline: str | None = setting(
        text(r"[ -~]{1,2047}", "a command line in ASCII of at most 2047 bytes"), default=None
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveToml(Table):
    """A whole ``enclave.toml``, checked.

    Args:
        version: :data:`VERSION`.
        name: DNS label of the enclave.
        uuid: Its identity; ``None`` until ``init`` wrote it. The same for the next two.
        app_uuid: Identity of its app.
        team_uuid: Identity of its team.
        debug: Debug enclave: zero PCRs, console open.
        dockerfile: Path relative to the file.
        api_key_auth: Whether a request needs a valid API key.
        trx_logging: Whether transaction logs are written.
        tls_termination: Whether TLS ends in the enclave.
        forward_proxy_protocol: Whether the PROXY header is replayed to the user process.
        trx_log_query: Whether transaction logs show query strings.
        forward_api_key: Whether the ``api-key`` header is passed on.
        trusted_headers: Header names (``name``, ``prefix-*``) whose values are logged.
        healthcheck: Health check of the user process; ``None``: HEALTHCHECK of the image decides,
            or else its port must accept.
        egress: What may leave.
        service: Where the user process listens.
        trust: Whose bundles are believed.
        env: Environment of the user process.
        scaling: How many enclaves run.
        resources: What one of them gets.
        signing: What signs the image.
        attestation: Measurements of the last build.
        attestation_cors: CORS of the attestation endpoint.
        acceptor: Connection and handshake bounds.
        limits: Every other bound.
        tls: TLS in the enclave.
        kernel: The kernel of the image.
        path: The file it was read from; ``None``: made in Python.
    """

    title: ClassVar[str] = ""
    version: int = setting(integer(VERSION, VERSION), default=VERSION)
    name: str = setting(
        text(
            r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
            "a DNS label: 1 to 63 lower-case letters, digits and hyphens",
        )
    )
    uuid: UUID | None = setting(identity(), default=None)
    app_uuid: UUID | None = setting(identity(), default=None)
    team_uuid: UUID | None = setting(identity(), default=None)
    debug: bool = setting(boolean(), default=False)
    dockerfile: str = setting(_FILE, default="./Dockerfile")
    api_key_auth: bool = setting(boolean(), default=True)
    trx_logging: bool = setting(boolean(), default=True)
    tls_termination: bool = setting(boolean(), default=True)
    forward_proxy_protocol: bool = setting(boolean(), default=False)
    trx_log_query: bool = setting(boolean(), default=False)
    forward_api_key: bool = setting(boolean(), default=False)
    trusted_headers: tuple[str, ...] = setting(
        many(checked_text("a header name or `prefix-*`", header_pattern_problem), most=256),
        default=(),
    )
    healthcheck: Healthcheck | None = setting(table(Healthcheck, shorthand="path"), default=None)
    egress: Egress = setting(table(Egress), default=Egress())
    service: Service = setting(table(Service), default=Service())
    trust: Trust = setting(table(Trust), default=Trust())
    env: Env = setting(table(Env), default=Env())
    scaling: Scaling = setting(table(Scaling), default=Scaling())
    resources: Resources = setting(table(Resources), default=Resources())
    signing: Signing = setting(table(Signing), default=Signing())
    attestation: Attestation = setting(table(Attestation), default=Attestation())
    attestation_cors: AttestationCors = setting(table(AttestationCors), default=AttestationCors())
    acceptor: Acceptor = setting(table(Acceptor), default=Acceptor())
    limits: Limits = setting(table(Limits), default=Limits())
    tls: Tls = setting(table(Tls), default=Tls())
    kernel: Kernel = setting(table(Kernel), default=Kernel())
    path: pathlib.Path | None = dataclasses.field(default=None, compare=False)

    def attested(self, *, service_port: int | None = None) -> dict[str, Any]:
        """The part that is measured: ``/cloister/config.json``, as `rust/wire` reads it.

        Args:
            service_port: The port the image's EXPOSE decided; ``[service] port`` wins over it, and
                without either it is 8008.

        Raises:
            ConfigError: A uuid or the service key is missing, or the port is reserved.
        """
        return attested.attested(self, service_port)

    def beside(self, relative: str) -> pathlib.Path:
        """A path of the file, which is relative to the file's folder."""
        return (self.path.parent if self.path else pathlib.Path()) / relative
