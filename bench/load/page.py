"""The page of a run, Markdown: tables, machine, versions, command."""

import datetime as dt
import os
import pathlib
import platform
import re
import subprocess
from collections.abc import Mapping

from bench.load.measure import Figure, Meter
from bench.load.rows import Table

OURS = "cloister"


def compared(table: Table) -> list[str]:
    """CPU µs and rate of each proxy, and ours divided by the best other."""
    names = list(next(iter(table.values()), {}))
    lines = [_line(["row", *names, "÷ best other"]), _line(["---"] * (len(names) + 2))]
    for row, figures in table.items():
        others = [f.micros for name, f in figures.items() if name != OURS and f is not None]
        own = figures.get(OURS)
        ratio = "" if own is None or not others else f"**{own.micros / min(others):.2f}**"
        lines.append(_line([row, *map(_cell, figures.values()), ratio]))
    return lines


def features(table: Table) -> list[str]:
    """CPU µs of ours, a column for what is turned off."""
    names = list(next(iter(table.values()), {}))
    lines = [_line(["row", *names]), _line(["---"] * (len(names) + 1))]
    return lines + [
        _line([row, *("-" if f is None else f"{f.micros:.1f}" for f in figures.values())])
        for row, figures in table.items()
    ]


def memory(peaks: Mapping[str, float]) -> list[str]:
    """Resident memory."""
    return [
        _line(list(peaks)),
        _line(["---"] * len(peaks)),
        _line([f"{mb:.1f} MB" for mb in peaks.values()]),
    ]


def two_cpus(table: Table) -> list[str]:
    """Operations per second with one worker and with two, and the gain."""
    lines = [_line(["row", "proxy", "1 worker", "2 workers", "gain"]), _line(["---"] * 5)]
    for row, figures in table.items():
        for name in dict.fromkeys(name.rpartition("-")[0] for name in figures):
            one, two = figures[f"{name}-1"], figures[f"{name}-2"]
            if one is None or two is None:
                continue
            gain = f"{two.rate / one.rate:.2f}"
            lines.append(_line([row, name, f"{one.rate:,.0f}/s", f"{two.rate:,.0f}/s", gain]))
    return lines


def head(rounds: int, seconds: int, method: str) -> list[str]:
    """What the first table says."""
    text = f"""\
# TLS and HTTP, {dt.datetime.now(dt.UTC):%Y-%m-%d}

CPU microseconds of the proxy per operation ({method}), minimum of {rounds} interleaved rounds of
{seconds} s, everything on one CPU; in brackets operations per second and p50/p99 in µs, each of its
best round. Ours is the static program with the flags of the enclave's; it checks the API key,
writes and drains transaction logs and scans bodies. The others do not. A dash: the proxy does not
speak it. A dagger: every attempt of a round was disturbed.
"""
    return text.split("\n")


def tail(meter: Meter, command: str) -> list[str]:
    """Where it ran, with what, and how disturbed."""
    return [
        "",
        (
            f"Machine: {_cpu_model()}, {os.cpu_count()} CPUs, Linux {platform.release()};"
            f" load average {os.getloadavg()[1]:.1f} at the end."
        ),
        f"Of {meter.attempts} measurements {meter.dropped} were disturbed and made again.",
        "",
        f"Versions: {', '.join(_versions())}.",
        "",
        f"Command: `{command}`.",
        "",
    ]


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    latency = f"; {figure.p50:.0f}/{figure.p99:.0f}" if figure.p50 and figure.p99 else ""
    mark = "" if figure.disturbed == 0 else " †"
    return f"{figure.micros:.1f} ({figure.rate:,.0f}/s{latency}){mark}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cpu_model() -> str:
    found = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _versions() -> list[str]:
    nginx = _said("nginx", "-v").rpartition(": ")[2].strip()
    haproxy = _said("haproxy", "-v").split("\n", 1)[0].removesuffix(" - https://haproxy.org/")
    openssl = " ".join(_said("openssl", "version").split()[:2])
    h2load = _said("h2load", "--version").strip()
    commit = _said("git", "rev-parse", "--short", "HEAD").strip()
    return [f"cloister {commit}", nginx, haproxy, openssl, h2load, "hyper 1.12 with rustls 0.23"]


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr
