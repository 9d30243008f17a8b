"""A verification takes what the P-384 verifications in it take, and next to nothing more."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PROGRAM = TARGET / "release" / "examples" / "verification_speed"
MOST = {
    "ours, Rust, cold": 1.05,
    "ours, Rust, known chain": 1.08,
    "ours, Python, cold": 1.05,
    "ours, Python, known chain": 1.08,
}
TRIES = 3


@pytest.mark.conformance
@pytest.mark.timeout(600)
def test_a_document_costs_its_signatures(tmp_path: pathlib.Path) -> None:
    """As ``make bench-attestation``; others only add to a time, so the best of a few counts."""
    if not PROGRAM.exists():
        pytest.skip("NOT MEASURED: `make conformance` builds verification_speed")
    page = tmp_path / "page.md"
    words = ["--rust", str(PROGRAM), "--no-evervault", "--rounds", "3", "--output", str(page)]
    best = dict.fromkeys(MOST, 9.0)
    for _ in range(TRIES):
        subprocess.run(
            [sys.executable, "-m", "bench.python.attestation_speed", *words],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        for label in MOST:
            row = rf"^\| {label} \| [\d.]+ \| ([\d.]+) \|"
            found = re.search(row, page.read_text(), re.MULTILINE)
            assert found, page.read_text()
            best[label] = min(best[label], float(found[1]))
        if all(best[label] <= most for label, most in MOST.items()):
            return
    assert all(best[label] <= most for label, most in MOST.items()), best
