"""Measures and writes the page: ``make bench``, or ``bash bench/relay/run.sh --rows 11,15``.

In a network namespace of its own with ``lo`` up. Loopback only; each measurement is bounded by
``--seconds``. The method is in bench/README.md.
"""

import argparse
import datetime as dt
import os
import pathlib
import platform
import re
import subprocess
import sys
from collections.abc import Mapping

from bench.load.measure import Figure, Meter
from bench.relay.rows import ROWS, Row, Run

OURS = "cloister"


def main() -> None:
    """Runs the rows that were asked for."""
    options = _options()
    meter = Meter(options.rounds)
    run = Run(load=options.relay_load, seconds=options.seconds, meter=meter)
    chosen = [row for row in ROWS if not options.rows or row.number in options.rows]
    lines = _head(options)
    for row in chosen:
        lines += _table(row, run.row(row))
    lines += _tail(meter, options)
    text = "\n".join(lines)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)
    print(text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--relay-load", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rows", type=_numbers, default=set(), help="with commas; else all")
    today = dt.datetime.now(dt.UTC).date().isoformat()
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path(f"bench/results/{today}-relay.md")
    )
    return parser.parse_args()


def _numbers(text: str) -> set[int]:
    return {int(number) for number in text.split(",")}


def _head(options: argparse.Namespace) -> list[str]:
    return [
        f"# Moving bytes, {dt.datetime.now(dt.UTC):%Y-%m-%d}",
        "",
        f"CPU microseconds of the proxy per operation, minimum of {options.rounds} interleaved",
        f"rounds of {options.seconds:g} s; client, proxy and backend share one CPU. Rate and,",
        "where the client tells them, p50 and p99 of its wait in µs are the best of the rounds.",
    ]


def _table(row: Row, figures: Mapping[str, Figure | None]) -> list[str]:
    found = {name: figure for name, figure in figures.items() if figure is not None}
    lines = ["", f"## {row.number}: {row.name}", ""]
    lines += ["| proxy | CPU µs | rate | p50 | p99 |", "|---|---|---|---|---|"]
    for name, figure in found.items():
        waits = [f"{wait:.0f}" if wait is not None else "" for wait in (figure.p50, figure.p99)]
        mark = "" if figure.disturbed == 0 else " †"
        cells = [name + mark, f"{figure.micros:.1f}", f"{figure.rate:,.0f}/s", *waits]
        lines.append(f"| {' | '.join(cells)} |")
    others = [figure.micros for name, figure in found.items() if name != OURS]
    if OURS in found and others:
        ratio = found[OURS].micros / min(others)
        lines += ["", f"Ours ÷ best other: **{ratio:.2f}** (target {row.target:.2f})"]
    return lines


def _tail(meter: Meter, options: argparse.Namespace) -> list[str]:
    rest = sys.argv[3:]
    command = " ".join(["bash bench/relay/run.sh", *rest]) if rest else "make bench"
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    disturbed = f"Of {meter.attempts} measurements {meter.dropped} were disturbed and made again."
    machine = f"{model[1] if model else platform.machine()}, {os.cpu_count()} CPUs"
    load = f"load average {os.getloadavg()[1]:.1f} at the end"
    lines = [
        f"†: a round that no attempt could measure undisturbed. {disturbed}",
        f"Machine: {machine}, Linux {platform.release()}; {load}.",
        f"Versions: {', '.join(_versions())}. Rounds of {options.seconds:g} s.",
        f"Command: `{command}`.",
    ]
    return [part for line in lines for part in ("", line)] + [""]


def _versions() -> list[str]:
    nginx = _said("nginx", "-v").rpartition(": ")[2].strip()
    haproxy = _said("haproxy", "-v").split("\n", 1)[0].removesuffix(" - https://haproxy.org/")
    commit = _said("git", "rev-parse", "--short", "HEAD").strip()
    return [f"cloister {commit}", nginx, haproxy, "tokio 1.54"]


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


if __name__ == "__main__":
    main()
