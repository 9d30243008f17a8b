"""The build of an image of 200 MB takes less than 1.5 times what sha384sum and cp take."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
MAX_RATIO = 1.5
TRIES = 3


@pytest.mark.conformance
@pytest.mark.timeout(900)
def test_a_build_takes_less_than_half_as_long_again_as_hashing_and_copying(
    tmp_path: pathlib.Path,
) -> None:
    """As ``make bench-build``; others only add to a time, so the best of a few tries counts."""
    if os.geteuid() != 0 or (os.cpu_count() or 1) < 2:
        pytest.skip("NOT MEASURED: it needs two processors, and root to run before everything else")
    page = tmp_path / "page.md"
    words = ["--ahead", "--rounds", "5", "--huge-gib", "0", "--output", str(page)]
    ratios = []
    while not ratios or (min(ratios) >= MAX_RATIO and len(ratios) < TRIES):
        subprocess.run(
            [sys.executable, "-m", "bench.python.build_speed", *words],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        found = re.search(r"^\| build \| [\d.]+ \| ([\d.]+) \|", page.read_text(), re.MULTILINE)
        assert found, page.read_text()
        ratios.append(float(found[1]))
    assert min(ratios) < MAX_RATIO, page.read_text()
