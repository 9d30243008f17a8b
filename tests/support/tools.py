"""Programs of others, started for the length of a block."""

import contextlib
import pathlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest


def needed(*names: str) -> None:
    """Skips the test when a program is not there; `make tools` installs them."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        pytest.skip(f"without {', '.join(missing)}: `make tools` installs it")


def free_port() -> int:
    """A port of the loopback that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def serving(command: list[str], port: int, log: pathlib.Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server in the foreground, from when its port accepts; what it says goes to ``log``."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()


def nginx(folder: pathlib.Path, body: str) -> list[str]:
    """The command of an nginx whose ``http`` block has ``body``."""
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr;\n"
        f"user root; events {{ worker_connections 256; }}\nhttp {{ access_log off;\n"
        + "".join(
            f"{kind}_temp_path {folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + f"{body}\n}}\n"
    )
    return ["nginx", "-c", str(config), "-p", str(folder)]


def haproxy(folder: pathlib.Path, body: str) -> list[str]:
    """The command of an HAProxy in TCP mode with these sections."""
    config = folder / "haproxy.cfg"
    config.write_text(
        "global\n  maxconn 200\ndefaults\n  mode tcp\n  timeout connect 5s\n"
        f"  timeout client 60s\n  timeout server 60s\n{body}\n"
    )
    return ["haproxy", "-db", "-q", "-f", str(config)]


def certificate(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A self-signed certificate for localhost and its key, PEM, made by openssl."""
    pem, key = folder / "own-cert.pem", folder / "own-key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(pem)),
        ],
        check=True,
        capture_output=True,
    )
    return pem, key
