"""The proxies that are compared, each as its own documentation tunes it.

All have the same certificate, TLS 1.2 and 1.3, X25519, session tickets for clients that ask, HTTP/2
and HTTP/1.1 by ALPN, no access log, and connections to the backend that are kept. Ours checks the
API key, writes and drains transaction logs, and scans bodies; nobody else does.
"""

import contextlib
import dataclasses
import json
import pathlib
import secrets
import shlex
import subprocess
from collections.abc import Mapping
from typing import Any

from bench.load.cpu import Account
from bench.load.programs import running

HOST = "127.0.0.1"
BACKEND = 18080


@dataclasses.dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy.

    Args:
        name: Its column.
        port: Where it accepts, on 127.0.0.1.
        account: What it costs.
        headers: What its clients send with every request.
    """

    name: str
    port: int
    account: Account
    headers: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Where proxies are started.

    Args:
        stack: Ends them.
        folder: For their files.
        cpus: Where they run, as ``taskset -c`` takes it.
        hyper_proxy: The program of bench/rust/hyper-proxy.
        bench_plane: The program of rust/devplane/examples/bench-plane.rs.
        under: What a proxy runs under: a program and its options.
    """

    stack: contextlib.ExitStack
    folder: pathlib.Path
    cpus: str
    hyper_proxy: pathlib.Path
    bench_plane: pathlib.Path
    under: tuple[str, ...] = ()

    def start(
        self, name: str, port: int, command: list[str], headers: tuple[str, ...] = ()
    ) -> Proxy:
        """Starts a program that is one column of a table."""
        account = self.stack.enter_context(running(name, [*self.under, *command], port, self.cpus))
        return Proxy(name, port, account, headers)

    def certificate(self) -> tuple[str, str]:
        """Chain and key, PEM: made once, ECDSA P-256."""
        certificate, key = self.folder / "cert.pem", self.folder / "key.pem"
        if not key.exists():
            command = shlex.split(
                "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
                " -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
            )
            command += ["-keyout", str(key), "-out", str(certificate)]
            subprocess.run(command, check=True, capture_output=True)
            key.chmod(0o600)
        return str(certificate), str(key)


def backend(field: Field) -> Proxy:
    """The application: nginx, which answers ``/small`` itself and the rest from files in memory."""
    files = field.folder / "files"
    files.mkdir(exist_ok=True)
    for name, size in (("64k", 65_536), ("1m", 1_048_576)):
        (files / name).write_bytes(b"x" * size)
    server = (
        f"server {{ listen {HOST}:{BACKEND} backlog=4096; root {files};\n"
        "sendfile on; tcp_nopush on; open_file_cache max=16; default_type text/plain;\n"
        'location = /small { return 200 "hello, world\\n"; } }'
    )
    return field.start("backend", BACKEND, _nginx(field, "backend", 1, server))


def nginx(field: Field, port: int, workers: int = 1, name: str = "nginx") -> Proxy:
    """Debian's nginx. Its reference: upstream keepalive, buffers that keep a body in memory."""
    certificate, key = field.certificate()
    server = (
        f"upstream app {{ server {HOST}:{BACKEND}; keepalive 256;\n"
        "keepalive_requests 1000000000; }\n"
        f"server {{ listen {HOST}:{port} ssl http2 backlog=4096 reuseport;\n"
        f"ssl_certificate {certificate}; ssl_certificate_key {key};\n"
        "ssl_protocols TLSv1.2 TLSv1.3; ssl_ecdh_curve X25519:prime256v1;\n"
        "ssl_session_cache off;\n"
        "client_body_buffer_size 128k;\n"
        "proxy_buffer_size 16k; proxy_buffers 16 64k; proxy_busy_buffers_size 128k;\n"
        "proxy_max_temp_file_size 0;\n"
        "location / { proxy_pass http://app; proxy_http_version 1.1;\n"
        'proxy_set_header Connection ""; } }'
    )
    return field.start(name, port, _nginx(field, name, workers, server))


def haproxy(field: Field, port: int, threads: int = 1, name: str = "haproxy") -> Proxy:
    """Debian's HAProxy. Its manual: ``http-reuse always``, a bufsize for whole bodies."""
    certificate, key = field.certificate()
    both = field.folder / "both.pem"
    both.write_text(pathlib.Path(certificate).read_text() + pathlib.Path(key).read_text())
    both.chmod(0o600)
    config = field.folder / f"{name}.cfg"
    config.write_text(
        f"global\n  nbthread {threads}\n  maxconn 4000\n  tune.bufsize 65536\n"
        "  tune.ssl.cachesize 0\n"
        "  ssl-default-bind-options ssl-min-ver TLSv1.2\n"
        "  ssl-default-bind-curves X25519:P-256\n"
        "defaults\n  mode http\n  option http-keep-alive\n  http-reuse always\n"
        "  timeout client 60s\n  timeout server 60s\n  timeout connect 5s\n"
        f"frontend in\n  bind {HOST}:{port} ssl crt {both} alpn h2,http/1.1 backlog 4096\n"
        f"  default_backend app\nbackend app\n  server s {HOST}:{BACKEND} pool-max-conn 1000\n"
    )
    return field.start(name, port, ["haproxy", "-db", "-f", str(config)])


def hyper(field: Field, port: int) -> Proxy:
    """A reverse proxy of hyper, rustls and aws-lc, one thread."""
    command = [str(field.hyper_proxy), f"{HOST}:{port}", f"{HOST}:{BACKEND}"]
    return field.start("hyper", port, [*command, *field.certificate()])


def ours(
    field: Field,
    port: int,
    workers: int = 1,
    name: str = "cloister",
    *,
    settings: Mapping[str, Any] | None = None,
) -> Proxy:
    """The data plane, built as the enclave's binary is; ``settings`` lie over its configuration."""
    api_key = f"ck_bench_{secrets.token_urlsafe(32)}"
    certificate, key = field.certificate()
    config = json.loads(pathlib.Path("tests/vectors/config/enclave.json").read_text())
    for section, value in (settings or {}).items():
        config[section] = {**config.get(section, {}), **value} if isinstance(value, dict) else value
    options = field.folder / f"{name}.json"
    options.write_text(
        json.dumps(
            {
                "config": config,
                "listen": f"tcp:{HOST}:{port}",
                "upstream": f"tcp:{HOST}:{BACKEND}",
                "certificate": [certificate, key],
                "api_key": api_key,
                "workers": workers,
                "logs": str(field.folder / f"{name}.ndjson"),
            }
        )
    )
    command = [str(field.bench_plane), str(options)]
    return field.start(name, port, command, (f"api-key: {api_key}",))


def _nginx(field: Field, name: str, workers: int, server: str) -> list[str]:
    folder = field.folder
    config = folder / f"{name}.conf"
    config.write_text(
        f"daemon off; worker_processes {workers}; pid {folder}/{name}.pid;\n"
        f"error_log {folder}/{name}.log; user root; events {{ worker_connections 4096; }}\n"
        "http { access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;\n"
        f"client_body_temp_path {folder}/{name}-body; proxy_temp_path {folder}/{name}-proxy;\n"
        f"fastcgi_temp_path {folder}/{name}-f; uwsgi_temp_path {folder}/{name}-u;\n"
        f"scgi_temp_path {folder}/{name}-s;\n{server}\n}}\n"
    )
    return ["nginx", "-c", str(config), "-p", str(folder)]
