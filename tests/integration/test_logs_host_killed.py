"""Transaction logs end to end: the host process is killed under load, and no record is lost."""

import collections
import contextlib
import http.client
import pathlib
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Self

import pytest
from tests.support.local_run import Somebody, make_project, wait_until
from tests.support.separate_host import Enclave
from tests.support.sockets import short_folder

from cloister.host import logs

CLIENTS = 4
OUTAGE_SECONDS = 10.0
PAUSE_SECONDS = 0.003  # between two requests of a client: some hundred a second in all


class Load:
    """Clients that ask one request after the other until they are told to stop."""

    def __init__(self, enclave: Enclave) -> None:
        self._enclave = enclave
        self._stop = threading.Event()
        self.answered: list[str] = []
        self.unexpected: list[str] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def _run(self) -> None:
        tls = ssl.create_default_context(cafile=str(self._enclave.ca_file))
        client = http.client.HTTPSConnection(
            "127.0.0.1", self._enclave.port, context=tls, timeout=20
        )
        with contextlib.closing(client):
            while not self._stop.is_set():
                client.request("GET", "/", headers={"api-key": self._enclave.api_key})
                answer = client.getresponse()
                answer.read()
                if answer.status != 200:
                    self.unexpected.append(f"status {answer.status}")
                # A list's append is atomic.
                self.answered.append(answer.headers["x-evervault-ctx"])
                time.sleep(PAUSE_SECONDS)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def who(tmp_path_factory: pytest.TempPathFactory) -> Somebody:
    return Somebody(home=tmp_path_factory.mktemp("home"))


@pytest.fixture
def enclave(tmp_path: pathlib.Path, who: Somebody) -> Iterator[Enclave]:
    project = make_project(tmp_path, who)
    dev_ca = pathlib.Path(who.environment()["CLOISTER_HOME"]) / "dev-ca"
    dev_ca.mkdir(parents=True, exist_ok=True)
    with short_folder() as folder:
        yield Enclave(project, folder / "run", dev_ca)


def kill(host: subprocess.Popen[str]) -> None:
    host.kill()
    assert host.wait() == -signal.SIGKILL
    assert host.stdout is not None
    host.stdout.close()


# Python 3.11 leaves a socket open whose connection is reset before it is wrapped (`ssl.SSLSocket`).
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
def test_a_host_that_is_killed_for_ten_seconds_under_load_loses_and_doubles_no_record(
    enclave: Enclave, who: Somebody, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counted end to end: every answer has its record, and every number one record.

    The host is killed twice, the second time in the middle of the backlog of the first.
    """
    host = enclave.host(who)
    try:
        with enclave:
            wait_until(lambda: is_serving(enclave), 60, "the enclave serves")
            with Load(enclave) as load:
                time.sleep(2)
                kill(host)
                before = len(load.answered)
                time.sleep(OUTAGE_SECONDS)
                during = len(load.answered) - before
                host = enclave.host(who)
                time.sleep(0.5)
                kill(host)
                time.sleep(0.5)
                host = enclave.host(who)
                time.sleep(2)
            answered = [*load.answered]
            expected = len(answered)
            # What was asked before the load, to see whether it serves, is logged, too.
            wait_until(
                lambda: set(answered) <= {record["txid"] for record in records(enclave)},
                30,
                "every answer has a record",
            )
            assert not load.unexpected, "the enclave serves without its host"
    finally:
        kill(host)
    assert during > 100, "there was load while the host was away"
    found = records(enclave)
    sequences = [record["sequence"] for record in found]
    assert sequences == list(range(1, len(found) + 1)), "none is missing, none is there twice"
    times = collections.Counter(record["txid"] for record in found)
    assert all(times[txid] == 1 for txid in answered)
    others = [record for record in found if record["txid"] not in set(answered)]
    assert all(record["uri"] == "/probe" for record in others)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{expected} requests, {during} of them while the host was away: each logged once\n"
        )


def records(enclave: Enclave) -> list[dict[str, object]]:
    return list(logs.records(enclave.log_dir))


def is_serving(enclave: Enclave) -> bool:
    tls = ssl.create_default_context(cafile=str(enclave.ca_file))
    client = http.client.HTTPSConnection("127.0.0.1", enclave.port, context=tls, timeout=20)
    with contextlib.closing(client):
        try:
            client.request("GET", "/probe", headers={"api-key": enclave.api_key})
            with client.getresponse() as answer:
                answer.read()
                return answer.status == 404  # it knows no such path
        except (OSError, http.client.HTTPException):
            return False
