"""Measures and writes the page: ``make bench``, or ``bash bench/load/run.sh --rows 1,9``.

In a network namespace of its own with ``lo`` up. Loopback only; each measurement is bounded by
``--seconds``. The method is in bench/README.md.
"""

import argparse
import contextlib
import datetime as dt
import pathlib
import sys
import tempfile

from bench.load import page, proxies, rows
from bench.load.clients import Clients
from bench.load.measure import Meter

PARTS = ("compared", "features", "memory", "two-cpus")
ONE_CPU, TWO_CPUS = "0", "0,1"


def main() -> None:
    """Runs the parts that were asked for."""
    options = _options()
    for program in (options.hyper_proxy, options.bench_plane):
        rows.probe(program)
    meter = Meter(options.rounds)
    lines: list[str] = []
    for part in options.parts:
        cpus = TWO_CPUS if part == "two-cpus" else ONE_CPU
        with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
            field = proxies.Field(
                stack=stack,
                folder=pathlib.Path(name),
                cpus=cpus,
                hyper_proxy=options.hyper_proxy,
                bench_plane=options.bench_plane,
            )
            clients = Clients(folder=field.folder, seconds=options.seconds, cpus=cpus)
            method = proxies.backend(field).account.method
            if not lines:
                lines = page.head(options.rounds, options.seconds, method)
            lines += _part(part, field, clients, meter, options.rows)
        rows.pause()
    lines += page.tail(meter, _command())
    text = "\n".join(lines)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)
    print(text)


def _part(
    part: str, field: proxies.Field, clients: Clients, meter: Meter, chosen: set[str]
) -> list[str]:
    match part:
        case "compared":
            table = rows.compared(field, clients, meter, chosen)
            return page.compared(table)
        case "features":
            told = ["", "Ours, CPU µs, with a feature turned off:", ""]
            return told + page.features(rows.features(field, clients, meter))
        case "memory":
            told = ["", "Most resident memory (Pss) while 1 000 connections make requests:", ""]
            return told + page.memory(rows.memory(field, clients))
        case _:
            told = ["", "Operations per second, everything free to use both CPUs:", ""]
            return told + page.two_cpus(rows.two_cpus(field, clients, meter))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hyper-proxy", type=pathlib.Path, required=True)
    parser.add_argument("--bench-plane", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rows", type=_set, default=set(), help="numbers, with commas; else all")
    parser.add_argument("--parts", type=_parts, default=list(PARTS), help=", ".join(PARTS))
    today = dt.datetime.now(dt.UTC).date().isoformat()
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path(f"bench/results/{today}-tls-http.md")
    )
    return parser.parse_args()


def _set(text: str) -> set[str]:
    return set(text.split(","))


def _parts(text: str) -> list[str]:
    chosen = text.split(",")
    if unknown := set(chosen) - set(PARTS):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
    return chosen


def _command() -> str:
    """As it was typed: without the programs, which run.sh gives."""
    rest = sys.argv[5:]
    return " ".join(["bash bench/load/run.sh", *rest]) if rest else "make bench"


if __name__ == "__main__":
    main()
