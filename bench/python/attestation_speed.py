"""How long a genuine attestation document takes to be verified, beside others and P-384 alone.

Run it by ``make bench-attestation``; it writes a page into ``bench/results``. Everything is
measured on one document, which each verifier accepts at the time it was made:

- **five verifications**: AWS-LC's P-384 on the very five signatures, from Rust: the limit of a
  verifier that knows nothing yet (``rust/attestation/examples/verification_speed.rs``);
- **ours, Rust** and **ours, Python**: from bytes to claims. *Cold* knows nothing. *Known chain*
  has seen another document of the same enclave: from Rust the same document whose own signature
  is checked each time, from Python 200 documents of one simulated enclave, each once. *Known
  document* has seen this very one.
- **cbor2 and cryptography**: the checks of NSM-AP in some forty lines, no more than needed;
- **evervault-attestation-bindings**: a published Rust verifier with Python bindings. It reads the
  clock of the machine, so it runs under libfaketime; and wants a TLS certificate whose key is in
  the document, which is made here.

Each round starts every program once, in turns; in it a verification is timed alone, hundreds of
times. The least wall time of all is kept: whatever else runs on a machine only adds to it.

What two threads of one process do is set beside what two processes do: a verifier that held
Python's lock would do half. That figure alone can be lowered by the rest of the machine; with
``--ahead`` (root) everything measured runs before all else, in the class ``SCHED_RR``.
"""

import argparse
import datetime as dt
import json
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata

from bench.python.attestation_subjects import DOCUMENT, MADE_AT

ROOT = pathlib.Path(__file__).parents[2]
AHEAD = ("chrt", "--rr", "1")
FAKETIME = pathlib.Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def main() -> None:
    """Measures and writes the page."""
    options = _options()
    if options.evervault and not FAKETIME.exists():
        sys.exit("error: libfaketime is missing (Debian: apt-get install faketime)")
    before = AHEAD if options.ahead else ()
    best: dict[str, float] = {}
    for number in range(options.rounds):
        for name, command in _programs(options):
            for key, value in _run([*before, *command]).items():
                label = f"{name}/{key}"
                better = max if key.endswith("_per_second") else min
                best[label] = better(best.get(label, value), value)
        sys.stderr.write(f"{number + 1}/{options.rounds}\n")
    page = "\n".join([*_head(options), *_table(best), *_tail()]) + "\n"
    options.output.write_text(page)
    sys.stderr.write(f"{page}\nwritten to {options.output}\n")


def _programs(options: argparse.Namespace) -> Iterable[tuple[str, list[str]]]:
    repeats = str(options.repeats)
    yield "rust", [str(options.rust), repeats, str(DOCUMENT)]
    here = [sys.executable, "-m", "bench.python.attestation_subjects", repeats]
    for part in ("ours", "cryptography", "together"):
        yield part, [*here, part]
    if options.evervault:
        then = dt.datetime.fromtimestamp(MADE_AT + 60, dt.UTC)
        faked = [
            f"LD_PRELOAD={FAKETIME}",
            f"FAKETIME={then.strftime('@%F %T')}",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
            "TZ=UTC",
        ]
        program = [sys.executable, "-m", "bench.python.evervault_subject", repeats]
        yield "evervault", ["env", *faked, *program]


def _run(command: list[str]) -> dict[str, float]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _table(best: dict[str, float]) -> Iterable[str]:
    five, one = best["rust/five"], best["rust/one"]
    cold = best["ours/cold"]
    yield "| what | µs | ÷ limit | documents a second, ÷ ours from Python, cold |"
    yield "|---|---|---|---|"
    rows: list[tuple[str, str, float]] = [
        ("five P-384 verifications, the limit of *cold*", "rust/five", five),
        ("the document's own alone, the limit of *known chain*", "rust/one", one),
        ("ours, Rust, cold", "rust/cold", five),
        ("ours, Rust, known chain", "rust/known_chain", one),
        ("ours, Rust, known document", "rust/known_document", 0),
        ("ours, Python, cold", "ours/cold", five),
        ("ours, Python, known chain", "ours/known_chain", one),
        ("ours, Python, known document", "ours/known_document", 0),
        ("cbor2 and cryptography", "cryptography/cold", five),
        ("evervault-attestation-bindings", "evervault/cold", five),
    ]
    for label, key, limit in rows:
        if key in best:
            ratio = f"{best[key] / limit:.2f}" if limit else "-"
            yield f"| {label} | {best[key] / 1000:.1f} | {ratio} | {cold / best[key]:.2f} |"
    yield ""
    yield "| cold verifications a second, from Python | |"
    yield "|---|---|"
    for label, key in (
        ("one thread", "one"),
        ("two threads", "two_threads"),
        ("two processes", "two_processes"),
    ):
        yield f"| {label} | {best[f'together/{key}_per_second']:.0f} |"
    yield ""


def _head(options: argparse.Namespace) -> list[str]:
    how = "before everything else of the machine" if options.ahead else "beside everything else"
    return [
        f"# Verifying an attestation document, {dt.datetime.now(dt.UTC).date()}",
        "",
        f"Least wall time in {options.rounds} interleaved rounds of {options.repeats}, run {how}.",
        "What each row is: `bench/python/attestation_speed.py`.",
        "",
    ]


def _tail() -> list[str]:
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    names = ("cbor2", "cryptography", "evervault-attestation-bindings")
    versions = ", ".join(f"{name} {_version(name)}" for name in names)
    lock = (ROOT / "Cargo.lock").read_text()
    aws_lc = re.search(r'name = "aws-lc-sys"\nversion = "([^"]+)"', lock)
    machine = (
        f"Machine: {model[1] if model else platform.machine()}, {os.cpu_count()} CPUs,"
        f" {platform.system()} {platform.release()}; average load of the last 15 minutes:"
        f" {os.getloadavg()[2]:.1f}."
    )
    used = f"Versions: Python {platform.python_version()}, {versions}"
    command = shlex.join(["python", "-m", "bench.python.attestation_speed", *sys.argv[1:]])
    return [
        machine,
        "",
        f"{used}, aws-lc-sys {aws_lc[1] if aws_lc else 'unknown'}; document `{DOCUMENT.name}`.",
        "",
        f"Command: `{command}`.",
    ]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _options() -> argparse.Namespace:
    today = dt.datetime.now(dt.UTC).date()
    parser = argparse.ArgumentParser(description="Measure the verification of one document.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--rust", type=pathlib.Path, help="the built `verification_speed`",
                        default=ROOT / "target/release/examples/verification_speed")  # fmt: skip
    parser.add_argument(
        "--ahead", action="store_true", help="run before everything else of the machine (root)"
    )
    parser.add_argument("--output", type=pathlib.Path,
                        default=ROOT / f"bench/results/{today}-attestation.md")  # fmt: skip
    parser.add_argument(
        "--no-evervault",
        dest="evervault",
        action="store_false",
        help="leave it out (it needs its package and libfaketime)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
