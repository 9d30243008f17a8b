"""The log intake as a process that is killed: what was acknowledged is on disk, once."""

import contextlib
import json
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from tests.support.agent import BOOT, call, send_logs
from tests.support.sockets import short_folder

from cloister._native import hostplane
from cloister.host import logs

ENCLAVE = "5b8f6c1e-6f0e-4a51-9f0c-0f6f6c9d7a11"
SERVER = """
import signal, sys
from cloister._native import hostplane
server = hostplane.AgentServer(
    sys.argv[1], upstream="/nowhere", log_dir=sys.argv[2], enclave=sys.argv[3]
)
print(server.address, flush=True)
signal.pause()
"""


@contextlib.contextmanager
def process(address: str, log_dir: pathlib.Path) -> Iterator[subprocess.Popen[str]]:
    running = subprocess.Popen(
        [sys.executable, "-c", SERVER, address, str(log_dir), ENCLAVE],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None
        assert running.stdout.readline().strip() == address
        yield running
    finally:
        running.kill()
        running.communicate()


@contextlib.contextmanager
def server(log_dir: pathlib.Path) -> Iterator[str]:
    with short_folder() as folder:
        made = hostplane.AgentServer(
            f"unix:{folder}/agent",
            upstream=folder / "nobody",
            log_dir=log_dir,
            enclave=ENCLAVE,
        )
        try:
            yield made.address
        finally:
            made.stop()


def test_no_record_is_lost_or_doubled_when_the_host_is_killed_between_batches(
    tmp_path: pathlib.Path,
) -> None:
    """The enclave sends a batch again until it is acknowledged; the host is killed five times."""
    batch, batches, kills = 50, 400, 5
    chance = random.Random(3)  # noqa: S311 - when to kill, not a secret
    acked = 0
    with short_folder() as folder:
        address = f"unix:{folder}/agent"
        for life in range(kills + 1):
            with process(address, tmp_path) as running:
                if life < kills:
                    threading.Timer(chance.uniform(0.02, 0.12), running.kill).start()
                try:
                    while acked < batch * batches:
                        answer = send_logs(address, range(acked + 1, acked + batch + 1))
                        assert answer.status == 200
                        assert answer.json == {"acked": acked + batch}
                        acked += batch
                except (OSError, EOFError, ConnectionError):
                    pass
                if life < kills:
                    assert running.wait() == -signal.SIGKILL
            if life == 0:
                assert acked < batch * batches, "killed while there was something to send"
    assert acked == batch * batches
    found = [record["sequence"] for record in logs.records(tmp_path)]
    assert found == list(range(1, batch * batches + 1))


def test_a_batch_sent_twice_is_written_once_and_acknowledged_twice(tmp_path: pathlib.Path) -> None:
    with server(tmp_path) as address:
        for _ in range(2):
            assert send_logs(address, range(1, 11)).json == {"acked": 10}
        assert send_logs(address, range(6, 16)).json == {"acked": 15}
    assert [record["sequence"] for record in logs.records(tmp_path)] == list(range(1, 16))


def test_a_data_plane_that_starts_again_counts_from_one_and_loses_nothing(
    tmp_path: pathlib.Path,
) -> None:
    with server(tmp_path) as address:
        assert send_logs(address, range(1, 4)).status == 200
        assert send_logs(address, range(1, 3), boot="f" * 32).json == {"acked": 2}
    assert [record["sequence"] for record in logs.records(tmp_path)] == [1, 2, 3, 1, 2]


def test_batches_of_many_connections_are_committed_together(tmp_path: pathlib.Path) -> None:
    with server(tmp_path) as address:
        answers: list[int] = []

        def send(number: int) -> None:
            answers.append(send_logs(address, range(1, 2), boot=f"{number:032x}").status)

        threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [200] * 8
    assert len(list(logs.records(tmp_path))) == 8


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 200),
        ({"x-batch-sequence": "2"}, 400),
        ({"x-cloister-boot": "me"}, 400),
        ({"content-encoding": "zstd"}, 415),
        ({"x-cloister-version": "2"}, 426),
        ({"x-cloister-version": "1"}, 200),
    ],
)
def test_a_batch_with_one_wrong_header_is_refused(
    tmp_path: pathlib.Path, change: dict[str, str], status: int
) -> None:
    headers = {"x-batch-sequence": "1", "x-cloister-boot": BOOT} | change
    with server(tmp_path) as address:
        answer = call(address, "POST", "/v1/logs", body=b'{"sequence":1}\n', headers=headers)
        assert answer.status == status
        assert answer.headers["x-cloister-version"] == "1"
        if status != 200:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json["status"] == status
    assert len(list(logs.records(tmp_path))) == (1 if status == 200 else 0)


def test_a_body_over_one_mebibyte_is_refused_and_one_below_is_not(tmp_path: pathlib.Path) -> None:
    def body(length: int) -> bytes:
        lines = []
        for number in (1, 2, 3):
            frame = len(json.dumps({"sequence": number, "a": ""})) + 1
            share = (length // 3 if number < 3 else length - 2 * (length // 3)) - frame
            lines.append(json.dumps({"sequence": number, "a": "x" * share}) + "\n")
        made = "".join(lines).encode()
        assert len(made) == length
        return made

    headers = {"x-batch-sequence": "3", "x-cloister-boot": BOOT}
    with server(tmp_path) as address:
        over = call(address, "POST", "/v1/logs", body=body((1 << 20) + 1), headers=headers)
        assert over.status == 413
        most = call(address, "POST", "/v1/logs", body=body(1 << 20), headers=headers)
        assert most.json == {"acked": 3}


def test_the_time_is_the_hosts(tmp_path: pathlib.Path) -> None:
    with server(tmp_path) as address:
        before = time.time_ns()  # the clock itself is what is compared
        told = call(address, "GET", "/v1/time").json["unix_nanos"]
        assert before <= told <= time.time_ns()
        assert call(address, "POST", "/v1/time").status == 405
        assert call(address, "GET", "/elsewhere").status == 404


def test_a_host_without_its_application_says_so(tmp_path: pathlib.Path) -> None:
    with server(tmp_path) as address:
        answer = call(address, "POST", "/v1/challenge")
        assert answer.status == 502
        assert answer.headers["content-type"] == "application/problem+json"


def test_records_are_followed_as_they_come_and_found_by_context(tmp_path: pathlib.Path) -> None:
    stop = threading.Event()
    seen: list[int] = []
    with server(tmp_path) as address:
        assert send_logs(address, range(1, 3)).status == 200
        reading = threading.Thread(
            target=lambda: seen.extend(record["sequence"] for record in logs.follow(tmp_path, stop))
        )
        reading.start()
        # What was there when the reading began is not given: send until something arrives.
        number = 3
        deadline = time.monotonic() + 10
        while not seen and time.monotonic() < deadline:
            assert send_logs(address, range(number, number + 1)).status == 200
            number += 1
            time.sleep(0.05)
        stop.set()
        reading.join()
    assert seen
    assert seen == list(range(seen[0], number))
    [found] = logs.records(tmp_path, logs.Wanted(ctx=f"{2:032x}"))
    assert found["sequence"] == 2
