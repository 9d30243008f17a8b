"""User instructions of a proxy per request, counted by callgrind: ``make bench-instructions``.

A busy machine changes CPU time and leaves these counts within half a percent, so they tell what a
change is worth. They are not CPU time: the kernel's part is not in them, and valgrind offers no SHA
extensions and no wide vectors, so cryptography counts for more than it costs. One connection, kept
alive, TLS 1.3; handshake and first requests are not counted.
"""

import argparse
import contextlib
import dataclasses
import pathlib
import re
import socket
import ssl
import subprocess
import tempfile

from bench.load import proxies
from bench.load.clients import json_body
from bench.load.proxies import Field, Proxy

WARM_UP = 30


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One line of the table.

    Args:
        title: What is asked.
        path: Target.
        body: Bytes of a JSON body; 0 makes a GET.
        count: Requests that are counted.
    """

    title: str
    path: str
    body: int
    count: int


LINES = [
    Line("GET, 13 bytes", "/small", 0, 300),
    Line("POST 1 KiB of JSON", "/small", 1024, 200),
    Line("GET 64 KiB", "/64k", 0, 60),
    Line("POST 64 KiB of JSON", "/small", 65_536, 60),
]


def main() -> None:
    """Counts and prints the table."""
    options = _options()
    counts: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        field = Field(
            stack=stack,
            folder=folder,
            cpus="0,1",
            hyper_proxy=options.hyper_proxy,
            bench_plane=options.bench_plane,
        )
        proxies.backend(field)
        for start, port in ((proxies.hyper, 18480), (proxies.ours, 18481)):
            out = folder / f"callgrind.{port}"
            command = ("valgrind", "-q", "--tool=callgrind", "--instr-atstart=no")
            under = (*command, f"--callgrind-out-file={out}")
            proxy = start(dataclasses.replace(field, under=under), port)
            counts[proxy.name] = [_count(proxy, out, line) for line in LINES]
    print("| request |", " | ".join(counts), "| ratio |\n|---|---|---|---|")
    for position, line in enumerate(LINES):
        theirs, ours = (many[position] for many in counts.values())
        print(f"| {line.title} | {theirs:,} | {ours:,} | {ours / theirs:.2f} |")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hyper-proxy", type=pathlib.Path, required=True)
    parser.add_argument("--bench-plane", type=pathlib.Path, required=True)
    return parser.parse_args()


def _count(proxy: Proxy, out: pathlib.Path, line: Line) -> int:
    body = json_body(line.body).encode() if line.body else b""
    lines = [f"{'POST' if body else 'GET'} {line.path} HTTP/1.1", "host: localhost"]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    request = "\r\n".join([*lines, *proxy.headers, "", ""]).encode() + body
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((proxies.HOST, proxy.port), 30) as raw,
        context.wrap_socket(raw) as stream,
    ):
        for _ in range(WARM_UP):
            _ask(stream, request)
        before = set(out.parent.glob(f"{out.name}*"))
        _control(proxy, "-i", "on")
        for _ in range(line.count):
            _ask(stream, request)
        _control(proxy, "-i", "off")
        _control(proxy, "-d")
    dumps = set(out.parent.glob(f"{out.name}*")) - before
    totals = [re.findall(r"^totals: (\d+)", dump.read_text(), re.MULTILINE) for dump in dumps]
    counted = sum(int(total) for many in totals for total in many)
    assert counted > 0, f"callgrind counted nothing: {dumps}"
    return counted // line.count


def _control(proxy: Proxy, *what: str) -> None:
    command = ["callgrind_control", *what, str(proxy.account.pid)]
    subprocess.run(command, check=True, capture_output=True)


def _ask(stream: ssl.SSLSocket, request: bytes) -> None:
    stream.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += stream.recv(65_536)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    assert head.startswith(b"HTTP/1.1 200 "), head
    assert length is not None, head
    left = int(length[1]) - len(body)
    while left > 0:
        left -= len(stream.recv(65_536))


if __name__ == "__main__":
    main()
