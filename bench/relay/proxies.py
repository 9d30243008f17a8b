"""The proxies that are compared, as their documentation tunes them, in front of one backend."""

import contextlib
import dataclasses
import pathlib
import sys

from bench.load.programs import running
from bench.load.proxies import Proxy

HOST = "127.0.0.1"


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """What a proxy is to do in a row.

    Args:
        backend: ``HOST:PORT``, or the path of a Unix socket.
        sends_header: Say first who connects: version 2 of PROXY, or 1 where there is no other.
    """

    backend: str
    sends_header: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Where proxies are started, all on one CPU.

    Args:
        stack: Ends them.
        folder: For their files.
        cpus: As ``taskset -c`` takes it.
        load: The program of bench/rust/relay-load.
    """

    stack: contextlib.ExitStack
    folder: pathlib.Path
    cpus: str
    load: pathlib.Path

    def start(self, name: str, port: int, command: list[str]) -> Proxy:
        """Starts a program that is one column of a table."""
        account = self.stack.enter_context(running(name, command, port, self.cpus))
        return Proxy(name, port, account)


def haproxy(field: Field, port: int, task: Task) -> Proxy:
    """HAProxy of Debian, as it comes."""
    return field.start("haproxy", port, _haproxy(field, "haproxy", port, task))


def haproxy_tuned(field: Field, port: int, task: Task) -> Proxy:
    """HAProxy with splicing both ways and pipes of 1 MiB (configuration.txt, ``tune.pipesize``)."""
    settings = "  tune.pipesize 1048576\n  maxpipes 1000\n"
    options = "  option splice-request\n  option splice-response\n"
    command = _haproxy(field, "haproxy-tuned", port, task, settings=settings, options=options)
    return field.start("haproxy-tuned", port, command)


def nginx(field: Field, port: int, task: Task) -> Proxy:
    """The stream module of nginx as it comes; its buffer is 16 KiB."""
    return field.start("nginx", port, _nginx(field, "nginx", port, task, "16k"))


def nginx_256k(field: Field, port: int, task: Task) -> Proxy:
    """The same with a buffer of 256 KiB for each connection."""
    return field.start("nginx-256k", port, _nginx(field, "nginx-256k", port, task, "256k"))


def tokio(field: Field, port: int, task: Task) -> Proxy:
    """``tokio::io::copy_bidirectional``; it knows neither PROXY nor Unix sockets."""
    return field.start("tokio", port, [str(field.load), "copy", f"{HOST}:{port}", task.backend])


def ours(field: Field, port: int, task: Task) -> Proxy:
    """``cloister relay``, as a host runs it."""
    kind = "unix" if "/" in task.backend else "tcp"
    command = [sys.executable, "-m", "cloister.cli.main", "relay"]
    command += ["--listen", f"tcp:{HOST}:{port}", "--to", f"{kind}:{task.backend}"]
    if task.sends_header:
        command += ["--proxy-protocol", "v2"]
    return field.start("cloister", port, command)


def _haproxy(  # noqa: PLR0913 - one argument a part of the file
    field: Field, name: str, port: int, task: Task, *, settings: str = "", options: str = ""
) -> list[str]:
    config = field.folder / f"{name}.cfg"
    server = f"unix@{task.backend}" if "/" in task.backend else task.backend
    header = " send-proxy-v2" if task.sends_header else ""
    config.write_text(
        f"global\n  nbthread 1\n  maxconn 4000\n{settings}"
        f"defaults\n  mode tcp\n{options}"
        "  timeout client 60s\n  timeout server 60s\n  timeout connect 5s\n"
        f"listen in\n  bind {HOST}:{port} backlog 4096\n  server s {server}{header}\n"
    )
    return ["haproxy", "-db", "-f", str(config)]


def _nginx(field: Field, name: str, port: int, task: Task, buffer: str) -> list[str]:
    folder = field.folder
    config = folder / f"{name}.conf"
    backend = f"unix:{task.backend}" if "/" in task.backend else task.backend
    header = "proxy_protocol on;" if task.sends_header else ""
    module = pathlib.Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    load = f"load_module {module};" if module.exists() else ""
    config.write_text(
        f"{load}\ndaemon off; worker_processes 1; pid {folder}/{name}.pid;\n"
        f"error_log {folder}/{name}.log; user root; events {{ worker_connections 4096; }}\n"
        f"stream {{ server {{ listen {HOST}:{port} backlog=4096; proxy_pass {backend};\n"
        f"proxy_buffer_size {buffer}; {header} }} }}\n"
    )
    return ["nginx", "-c", str(config), "-p", str(folder)]
