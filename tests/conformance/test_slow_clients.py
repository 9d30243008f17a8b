"""slowhttptest, which plays the known slow attacks and asks all the while whether it is served."""

import csv
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from tests.support.dev_process import DevProcess, dev_process
from tests.support.recording_process import ok, recording

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.skipif(shutil.which("slowhttptest") is None, reason="needs slowhttptest"),
]
CONNECTIONS, SECONDS = 1_000, 20
LIMITS = "[limits]\nhead_timeout = 5000\nbody_idle = 5000\nkeepalive_idle = 5000\n"
MODES = {
    "slow-heads": ["-H"],
    "slow-bodies": ["-B", "-s", "100000"],
    "ranges": ["-R"],
    "slow-reads": ["-X", "-k", "3", "-w", "10", "-y", "20", "-n", "1", "-z", "32"],
}


@pytest.fixture
def plane(tmp_path: pathlib.Path) -> Iterator[DevProcess]:
    # The tool can send no header of ours, so no key is asked for.
    open_to_all = "api_key_auth = false\n"
    with (
        recording(lambda _: ok(b"z" * 200_000)) as process,
        dev_process(process.address, tmp_path, top=open_to_all, tables=LIMITS) as running,
    ):
        yield running


@pytest.mark.parametrize("mode", MODES)
def test_a_slow_attack_keeps_nobody_out(
    mode: str, plane: DevProcess, tmp_path: pathlib.Path
) -> None:
    before = plane.memory()
    command = ["slowhttptest", *MODES[mode], "-c", str(CONNECTIONS), "-r", "300", "-i", "2"]
    # Whoever asks whether it is served waits for a second at most.
    command += ["-l", str(SECONDS), "-p", "1", "-g", "-o", str(tmp_path / mode), "-u", plane.url]
    subprocess.run(command, capture_output=True, check=True)
    with (tmp_path / f"{mode}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    # Ranges are answered, and the tool ends when its connections do.
    assert len(rows) >= (3 if mode == "ranges" else SECONDS // 2)
    # The column has the number of connections where the service was available, and 0 where not.
    assert all(int(row["Service Available"]) for row in rows), rows
    reached = "Closed" if mode == "ranges" else "Connected"
    assert max(int(row[reached]) for row in rows) > CONNECTIONS // 2
    assert (plane.memory() - before) / CONNECTIONS < 160 * 1024
