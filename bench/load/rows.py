"""What is measured: the rows of performance.md §2a, the price of each feature, memory, two CPUs."""

import contextlib
import dataclasses
import pathlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from bench.load import proxies
from bench.load.clients import Clients
from bench.load.measure import Client, Figure, Meter
from bench.load.proxies import Field, Proxy

KIB = 1024
JSON = "application/json"


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One row of the first table.

    Args:
        key: Chosen by ``--rows``; several lines of one row share its number.
        title: What is done.
        client: Who does it.
    """

    key: str
    title: str
    client: Callable[[Clients], Client]


ROWS = [
    Row("1", "HTTP/1.1 small GET, 32 connections", lambda c: lambda p: c.get(p, "/small", 32)),
    Row("2", "HTTP/1.1 small GET, 1 connection", lambda c: lambda p: c.get(p, "/small", 1)),
    Row("3", "HTTP/1.1 POST 1 KiB JSON, 32 conn.", lambda c: lambda p: c.post(p, 32, JSON, KIB)),
    Row("4", "HTTP/2, 8 connections of 32 streams", lambda c: lambda p: c.h2(p, "/small", 8, 32)),
    Row("5", "HTTP/2, 1 connection of 1 stream", lambda c: lambda p: c.h2(p, "/small", 1, 1)),
    Row("6", "HTTP/1.1 GET 64 KiB, 32 connections", lambda c: lambda p: c.get(p, "/64k", 32)),
    Row("7", "HTTP/1.1 GET 1 MiB, 8 connections", lambda c: lambda p: c.get(p, "/1m", 8)),
    Row("7", "HTTP/2 GET 1 MiB, 8 connections", lambda c: lambda p: c.h2(p, "/1m", 8, 1)),
    Row("8", "HTTP/1.1 POST 64 KiB, 32 conn.", lambda c: lambda p: c.post(p, 32, JSON, 64 * KIB)),
    Row("9", "full handshake, TLS 1.3", lambda c: lambda p: c.handshakes(p, "tls1_3")),
    Row("9", "full handshake, TLS 1.2", lambda c: lambda p: c.handshakes(p, "tls1_2")),
    Row("10", "connect + GET + close", lambda c: c.whole_connections),
]

# Columns of the second table: what is laid over the configuration.
FEATURES: dict[str, Mapping[str, object]] = {
    "everything": {},
    "no API key": {"api_key_auth": False},
    "no logs": {"logs": {"trx_logging": False}},
    "neither": {"api_key_auth": False, "logs": {"trx_logging": False}},
}
# A body of a type that is never scanned passes as it arrives.
UNSCANNED = "application/octet-stream"

Table = dict[str, Mapping[str, Figure | None]]


def compared(field: Field, clients: Clients, meter: Meter, chosen: set[str]) -> Table:
    """Rows 1 to 10, every proxy, one CPU."""
    all_of_them = [
        proxies.nginx(field, 18443),
        proxies.haproxy(field, 18444),
        proxies.hyper(field, 18445),
        proxies.ours(field, 18446),
    ]
    return {
        f"{row.key}: {row.title}": meter.row(row.key, row.client(clients), all_of_them)
        for row in ROWS
        if not chosen or row.key in chosen
    }


def features(field: Field, clients: Clients, meter: Meter) -> Table:
    """Ours with one feature less at a time."""
    variants = [
        proxies.ours(field, 18450 + place, name=name.replace(" ", "-"), settings=settings)
        for place, (name, settings) in enumerate(FEATURES.items())
    ]
    lines: dict[str, Client] = {
        "1: HTTP/1.1 small GET, 32 connections": lambda p: clients.get(p, "/small", 32),
        "3: POST 1 KiB, scanned as JSON": lambda p: clients.post(p, 32, JSON, KIB),
        "POST 1 KiB, of a type that is not scanned": lambda p: clients.post(p, 32, UNSCANNED, KIB),
        "8: POST 64 KiB, scanned as JSON": lambda p: clients.post(p, 32, JSON, 64 * KIB),
        "POST 64 KiB, not scanned": lambda p: clients.post(p, 32, UNSCANNED, 64 * KIB),
    }
    return {line: meter.row(line, client, variants) for line, client in lines.items()}


def memory(field: Field, clients: Clients) -> dict[str, float]:
    """Most resident memory, MB, while 1 000 connections make requests."""
    peaks = {}
    for start in (proxies.nginx, proxies.haproxy, proxies.hyper, proxies.ours):
        with contextlib.ExitStack() as stack:
            proxy = start(dataclasses.replace(field, stack=stack), 18460)
            with _watched(proxy) as peak:
                clients.get(proxy, "/small", 1_000)
            peaks[proxy.name] = peak[0]
    return peaks


@contextlib.contextmanager
def _watched(proxy: Proxy) -> Iterator[list[float]]:
    peak, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            peak[0] = max(peak[0], proxy.account.resident_mb())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def two_cpus(field: Field, clients: Clients, meter: Meter) -> Table:
    """Throughput with one worker and with two, everything free to use both CPUs."""
    pairs = [
        proxies.nginx(field, 18470, 1, "nginx-1"),
        proxies.nginx(field, 18471, 2, "nginx-2"),
        proxies.haproxy(field, 18472, 1, "haproxy-1"),
        proxies.haproxy(field, 18473, 2, "haproxy-2"),
        proxies.ours(field, 18474, 1, "cloister-1"),
        proxies.ours(field, 18475, 2, "cloister-2"),
    ]
    lines: dict[str, Client] = {
        "small GET, 32 connections": lambda p: clients.get(p, "/small", 32),
        "GET 64 KiB, 32 connections": lambda p: clients.get(p, "/64k", 32),
        "POST 64 KiB JSON, 32 connections": lambda p: clients.post(p, 32, JSON, 64 * KIB),
    }
    return {line: meter.row(line, client, pairs) for line, client in lines.items()}


def probe(path: pathlib.Path) -> None:
    """Fails early when a program that was built is missing."""
    if not path.exists():
        raise SystemExit(f"there is no `{path}`: run it by `make bench`")


def pause() -> None:
    """A moment for what the last part left behind."""
    time.sleep(0.5)
