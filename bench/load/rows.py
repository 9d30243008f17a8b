"""Rows 1, 3 and 9: CPU time of the proxy per operation, ours beside nginx and a plain hyper proxy.

Run it by ``make bench``, in a network namespace of its own with ``lo`` up. Loopback only; each
measurement is bounded by ``--seconds``. The method is in bench/README.md.
"""

import argparse
import contextlib
import dataclasses
import datetime as dt
import os
import pathlib
import platform
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from cloister import attest, dev  # noqa: F401 - fails early, before anything is started

CPU = "0"
BACKEND, NGINX, HYPER, OURS = 18080, 18443, 18444, 18445
DISTURBED = (
    1.25  # a calibration loop slower than the best one by more than this drops a measurement
)
BODY = '{"name": "Ada", "note": "' + "x" * 980 + '", "id": 1}'  # about 1 KiB of JSON


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """One measurement: CPU microseconds of the proxy per operation, and operations per second."""

    micros: float
    rate: float


@dataclasses.dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy under test: its name, its port and the processes it runs as."""

    name: str
    port: int
    pid: int
    headers: tuple[str, ...] = ()


def main() -> None:
    """Measures every row and writes the page."""
    options = _options()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        certificate, key = _certificate(folder)
        stack.enter_context(_running(_nginx_backend(folder), BACKEND))
        proxies = [
            _start(stack, "nginx", NGINX, _nginx_proxy(folder, certificate, key)),
            _start(
                stack,
                "hyper",
                HYPER,
                [
                    options.hyper_proxy,
                    f"127.0.0.1:{HYPER}",
                    f"127.0.0.1:{BACKEND}",
                    certificate,
                    key,
                ],
            ),
            _start_ours(stack, folder, certificate, key),
        ]
        rows = {
            "1: HTTP/1.1 small GET, 32 connections": lambda proxy: _wrk(proxy, options.seconds),
            "3: HTTP/1.1 POST 1 KiB JSON, 32 connections": lambda proxy: _wrk(
                proxy, options.seconds, _post_script(folder)
            ),
            "9: full handshake, TLS 1.3": lambda proxy: _handshakes(
                proxy, options.seconds, "-tls1_3"
            ),
            "9: full handshake, TLS 1.2": lambda proxy: _handshakes(
                proxy, options.seconds, "-tls1_2"
            ),
        }
        results = {row: _row(row, run, proxies, options.rounds) for row, run in rows.items()}
    page = _page(results, options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(page)
    print(page)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hyper-proxy", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    today = dt.datetime.now(dt.UTC).date().isoformat()
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path(f"bench/results/{today}-tls-http.md")
    )
    return parser.parse_args()


def _row(
    row: str, run: Callable[[Proxy], float], proxies: list[Proxy], rounds: int
) -> dict[str, Figure]:
    """Interleaves the proxies and keeps each one's minimum of CPU time and its best rate."""
    best_loop = min(_calibrate() for _ in range(5))
    figures: dict[str, list[Figure]] = {proxy.name: [] for proxy in proxies}
    for round_ in range(rounds):
        for proxy in proxies:
            for _ in range(3):
                before = _calibrate()
                cpu, started = _cpu_seconds(proxy.pid), time.monotonic()
                operations = run(proxy)
                elapsed, used = time.monotonic() - started, _cpu_seconds(proxy.pid) - cpu
                figure = Figure(micros=used / operations * 1e6, rate=operations / elapsed)
                if max(before, _calibrate()) <= best_loop * DISTURBED:
                    break
            figures[proxy.name].append(figure)
            print(f"{row} round {round_} {proxy.name}: {figure.micros:.2f} us", file=sys.stderr)
    return {
        name: Figure(min(f.micros for f in many), max(f.rate for f in many))
        for name, many in figures.items()
    }


def _calibrate() -> float:
    started, total = time.perf_counter(), 0
    for number in range(300_000):
        total += number & 7
    assert total > 0
    return time.perf_counter() - started


def _cpu_seconds(root: int) -> float:
    """CPU time of a process, its descendants and all their threads, in seconds."""
    total = 0
    for pid in _tree(root):
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def _tree(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue.extend(children.get(pid, []))
    return found


def _wrk(proxy: Proxy, seconds: int, script: pathlib.Path | None = None) -> float:
    command = ["taskset", "-c", CPU, "wrk", "-t1", "-c32", f"-d{seconds}s"]
    for header in proxy.headers:
        command += ["-H", header]
    if script is not None:
        command += ["-s", str(script)]
    out = subprocess.run(
        [*command, f"https://127.0.0.1:{proxy.port}/small"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    counted = re.search(r"(\d+) requests in", out)
    assert counted is not None, out
    assert "Non-2xx" not in out, f"{proxy.name}: {out}"
    return float(counted[1])


def _handshakes(proxy: Proxy, seconds: int, version: str) -> float:
    command = ["taskset", "-c", CPU, "openssl", "s_time", "-new", version, "-time", str(seconds)]
    run = subprocess.run(
        [*command, "-connect", f"127.0.0.1:{proxy.port}"],
        capture_output=True,
        text=True,
        check=True,
    )
    counted = re.findall(r"(\d+) connections in", run.stdout)
    assert counted, run.stdout + run.stderr
    return float(counted[-1])


def _post_script(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "post.lua"
    path.write_text(
        "wrk.method = 'POST'\n"
        f"wrk.body = [[{BODY}]]\n"
        "wrk.headers['Content-Type'] = 'application/json'\n"
    )
    return path


def _certificate(folder: pathlib.Path) -> tuple[str, str]:
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = shlex.split(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        " -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    )
    subprocess.run(
        [*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    key.chmod(0o600)
    return str(certificate), str(key)


def _nginx(folder: pathlib.Path, name: str, body: str) -> list[str]:
    config = folder / f"{name}.conf"
    config.write_text(
        f"daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.log;\n"
        "user root; events { worker_connections 4096; }\n"
        "http { access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;\n"
        f"client_body_temp_path {folder}/{name}-body; proxy_temp_path {folder}/{name}-proxy;\n"
        f"fastcgi_temp_path {folder}/{name}-f; uwsgi_temp_path {folder}/{name}-u;\n"
        f"scgi_temp_path {folder}/{name}-s;\n{body}\n}}\n"
    )
    return ["nginx", "-c", str(config), "-p", str(folder)]


def _nginx_backend(folder: pathlib.Path) -> list[str]:
    return _nginx(
        folder,
        "backend",
        f"server {{ listen 127.0.0.1:{BACKEND} backlog=4096;\n"
        'location / { default_type text/plain; return 200 "hello, world\\n"; } }',
    )


def _nginx_proxy(folder: pathlib.Path, certificate: str, key: str) -> list[str]:
    return _nginx(
        folder,
        "proxy",
        f"upstream app {{ server 127.0.0.1:{BACKEND}; keepalive 128;\n"
        "keepalive_requests 1000000000; }\n"
        f"server {{ listen 127.0.0.1:{NGINX} ssl backlog=4096;\n"
        f"ssl_certificate {certificate}; ssl_certificate_key {key};\n"
        "ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache off; ssl_session_tickets off;\n"
        "location / { proxy_pass http://app; proxy_http_version 1.1;\n"
        'proxy_set_header Connection ""; } }',
    )


def _start_ours(
    stack: contextlib.ExitStack, folder: pathlib.Path, certificate: str, key: str
) -> Proxy:
    api_key = f"ck_bench_{secrets.token_urlsafe(32)}"
    (folder / "api-key").write_text(api_key)
    (folder / "api-key").chmod(0o600)
    command = [sys.executable, "-m", "cloister.cli.main", "dev"]
    command += ["--listen", f"127.0.0.1:{OURS}", "--upstream", f"127.0.0.1:{BACKEND}"]
    command += ["--cert", certificate, "--key", key, "--workers", "1"]
    command += ["--api-key-file", str(folder / "api-key"), "--logs", str(folder / "trx.ndjson")]
    proxy = _start(stack, "cloister", OURS, command)
    return dataclasses.replace(proxy, headers=(f"api-key: {api_key}",))


def _start(stack: contextlib.ExitStack, name: str, port: int, command: list[str]) -> Proxy:
    return Proxy(name, port, stack.enter_context(_running(command, port)))


@contextlib.contextmanager
def _running(command: list[str], port: int) -> Iterator[int]:
    """Starts a process on the one CPU, waits until its port accepts, and ends it."""
    process = subprocess.Popen(["taskset", "-c", CPU, *command], start_new_session=True)
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"did not start: {' '.join(command)}")
            time.sleep(0.05)
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _page(results: dict[str, dict[str, Figure]], options: argparse.Namespace) -> str:
    lines = [
        f"# TLS and HTTP, {dt.datetime.now(dt.UTC):%Y-%m-%d}",
        "",
        f"CPU microseconds of the proxy per operation, minimum of {options.rounds} interleaved",
        f"rounds of {options.seconds} s, everything on one CPU; in brackets operations per second,",
        "best round. Ours checks the API key, writes and drains transaction logs and scans bodies;",
        "the others do not.",
        "",
        "| row | nginx | hyper | cloister | ÷ best other |",
        "|---|---|---|---|---|",
    ]
    for row, figures in results.items():
        cells = [f"{f.micros:.1f} ({f.rate:,.0f}/s)" for f in figures.values()]
        best = min(figure.micros for name, figure in figures.items() if name != "cloister")
        lines.append(f"| {row} | {' | '.join(cells)} | {figures['cloister'].micros / best:.2f} |")
    lines += [
        "",
        f"Machine: {_cpu_model()}, {os.cpu_count()} CPUs, Linux {platform.release()}.",
        "",
    ]
    lines += [f"Versions: {', '.join(_versions())}.", "", "Command: `make bench`.", ""]
    return "\n".join(lines)


def _cpu_model() -> str:
    found = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _versions() -> list[str]:
    nginx = subprocess.run(
        ["nginx", "-v"], capture_output=True, text=True, check=True
    ).stderr.strip()
    openssl = subprocess.run(
        ["openssl", "version"], capture_output=True, text=True, check=True
    ).stdout
    return [nginx.rpartition(": ")[2], " ".join(openssl.split()[:2]), "hyper 1.12 with rustls 0.23"]


if __name__ == "__main__":
    main()
