"""``cloister host``: enclaves that follow what a platform elsewhere has as deployed."""

import json
import os
import pathlib
import resource
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from uuid import UUID

import boto3
import pytest
import requests
from cryptography import x509
from moto.server import ThreadedMotoServer
from tests.support.host_process import (
    HostProcess,
    Project,
    descendants,
    environ_below,
    hosting,
)
from tests.support.local_run import Somebody, is_alive, wait_until
from tests.support.platform_server import PlatformServer, serving

from cloister.attest import TrustAnchor
from cloister.client import Session


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformServer]:
    who = Somebody(home=tmp_path_factory.mktemp("home"))
    folder = tmp_path_factory.mktemp("platform") / "state"
    with serving(who, folder, "--class", "development") as server:
        yield server


@pytest.fixture(scope="module")
def project(platform: PlatformServer, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """An enclave with two images, ``one`` and ``two``, and one that ends at once."""
    made = Project(platform, tmp_path_factory.mktemp("project"), "hello")
    made.build("one")
    made.build("two")
    made.build("broken", dockerfile='COPY --chmod=755 Dockerfile /no\nENTRYPOINT ["/no"]')
    return made


@pytest.fixture
def host(project: Project, tmp_path: pathlib.Path) -> Iterator[HostProcess]:
    """A host of that enclave, with the first image, that was not started."""
    made = HostProcess.make(project, tmp_path / "host")
    made.add("one")
    try:
        yield made
    finally:
        for one in project.who.json("list", "deployments", folder=project.folder)["deployments"]:
            if one["active"]:
                project.end(one["id"])


def events(project: Project) -> list[str]:
    """Kinds of what was reported of the enclave, oldest first."""
    found = project.platform.client().get(f"/v1/enclaves/{project.uuid}/events", limit=100)
    return [str(one["kind"]) for one in sorted(found, key=lambda one: one["id"])]


def test_a_host_runs_what_is_deployed_and_only_while_it_is(
    host: HostProcess, project: Project
) -> None:
    key = project.api_key()
    with hosting(host):
        assert host.said["class"] == "development"
        wait_until(lambda: "no deployment" in str(host.health()["reason"]), 20, "the answer")
        status, text = host.get("/health")
        assert (status, json.loads(text)["state"]) == (503, "not ready")
        assert host.health()["listen"] is None
        deployment = project.deploy("one")
        host.wait_for(deployment)
        assert host.get("/health")[0] == 200
        session = Session(
            host.url,
            {f"PCR{index}": value for index, value in _pcrs(project, deployment).items()},
            trust_anchor=TrustAnchor.dangerous_root(host.nsm_root),
            ca_file=host.ca_file,
            api_key=key,
        )
        with session as client:
            assert client.get(f"{host.url}/", timeout=20).status_code == 200
        assert host.metric("cloister_host_ready") == 1
        assert host.metric("cloister_relay_connections_total") >= 1
        assert f'cloister_requests_total{{enclave="{project.uuid}"}} ' in host.get("/metrics")[1]
        wait_until(lambda: "host.ready" in events(project), 20, "the event")
        logs = ("logs", "--log-dir", str(host.folder / "state" / "logs" / project.uuid))
        wait_until(
            lambda: " 200 GET / " in project.who.run(*logs, folder=host.folder)[0], 20, "its logs"
        )
        project.end(deployment)
        wait_until(lambda: host.health()["deployment"] is None, 30, "the end")
        assert host.process is not None
        wait_until(lambda: not descendants(host.process.pid), 60, "the enclave's end")
        assert host.end() == 0
    # The enclave may be refused a bundle meanwhile, which is an event of its own.
    ends = [kind for kind in events(project) if kind != "host.refused"]
    assert ends[-2:] == ["host.stopping", "host.ended"]


class HalfSent:
    """A request of which half was sent, over TLS."""

    def __init__(self, host: HostProcess, key: str) -> None:
        address, _, port = host.url.removeprefix("https://").rpartition(":")
        plain = socket.create_connection((address, int(port)), timeout=30)
        context = ssl.create_default_context(cafile=host.ca_file)
        self._link = context.wrap_socket(plain, server_hostname=address)
        head = f"POST /hello HTTP/1.1\r\nHost: a\r\napi-key: {key}\r\nContent-Length: 4\r\n\r\nab"
        self._link.sendall(head.encode())

    def finish(self) -> bytes:
        """Sends the rest; the answer, to its end."""
        with self._link:
            self._link.sendall(b"cd")
            return b"".join(iter(lambda: self._link.recv(65536), b""))


def test_a_new_deployment_takes_over_without_one_failed_request(
    host: HostProcess, project: Project
) -> None:
    key = project.api_key()
    first = project.deploy("one")
    with hosting(host):
        host.wait_for(first)
        url, stop = host.url, threading.Event()
        answers: list[int | str] = []

        def call() -> None:
            while not stop.is_set():
                try:
                    got = requests.get(
                        f"{url}/", verify=host.ca_file, headers={"api-key": key}, timeout=20
                    )
                    answers.append(got.status_code)
                except requests.RequestException as problem:
                    answers.append(repr(problem))

        threads = [threading.Thread(target=call) for _ in range(2)]
        for thread in threads:
            thread.start()
        half_sent = HalfSent(host, key)
        try:
            second = project.deploy("two")
            host.add("two")
            host.wait_for(second)
            assert half_sent.finish().startswith(b"HTTP/1.1 200 ")
            wait_until(lambda: "host.ended" in host.log.read_text(), 60, "the end of the first")
            before = len(answers)
            wait_until(lambda: len(answers) >= before + 5, 20, "answers of the second")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert set(answers) == {200}, set(answers)
        assert host.process is not None
        assert [one[b"VERSION"] for one in environ_below(host.process.pid)] == [b"two"]
        assert host.metric("cloister_host_boots_total") == 2
        assert host.metric("cloister_host_failures_total") == 0
        assert host.end() == 0


def test_an_image_that_does_not_become_ready_leaves_the_one_before_it_alone(
    host: HostProcess, project: Project
) -> None:
    first = project.deploy("one")
    set_top(host, "start_timeout = 20000")
    with hosting(host):
        host.wait_for(first)
        broken = project.deploy("broken")
        host.add("broken")
        wait_until(lambda: host.metric("cloister_host_failures_total") > 0, 90, "the failure")
        assert host.health()["deployment"] == first
        assert host.get("/health")[0] == 200
        assert f"{first} goes on" in host.log.read_text()
        project.end(broken)
        assert host.end() == 0


def test_an_image_that_is_overwritten_while_it_is_measured_ends_nothing(
    host: HostProcess, project: Project
) -> None:
    first = project.deploy("one")
    with hosting(host):
        host.wait_for(first)
        content = (project.folder / "two.eif").read_bytes()
        path = host.images / "two.eif"
        until = time.monotonic() + 6
        while time.monotonic() < until:
            path.write_bytes(content)
            time.sleep(0.6)
            path.write_bytes(content[:1000])
            time.sleep(0.1)
            os.utime(path, (1, 1))
        second = project.deploy("two")
        path.write_bytes(content)
        host.wait_for(second)
        assert host.metric("cloister_host_failures_total") == 0
        assert host.end() == 0


def test_an_enclave_that_ends_is_started_again(host: HostProcess, project: Project) -> None:
    deployment = project.deploy("one")
    with hosting(host):
        host.wait_for(deployment)
        assert host.process is not None
        (launcher, *_) = descendants(host.process.pid)
        asked = time.monotonic()
        os.kill(launcher, signal.SIGKILL)
        wait_until(lambda: host.metric("cloister_host_boots_total") == 2, 60, "the second boot")
        host.wait_for(deployment)
        assert time.monotonic() - asked < 60
        assert host.metric("cloister_host_failures_total") == 1
        assert host.end() == 0


def test_a_hangup_starts_the_enclave_anew_and_applies_variables(
    host: HostProcess, project: Project
) -> None:
    deployment = project.deploy("one")
    with hosting(host):
        host.wait_for(deployment)
        assert host.process is not None
        pid = host.process.pid
        assert b"ADDED" not in environ_below(pid)[0]
        project.who.run("env", "set", "ADDED", "later", folder=project.folder)
        host.send(signal.SIGHUP)
        wait_until(
            lambda: [one.get(b"ADDED") for one in environ_below(pid)] == [b"later"], 90, "the boot"
        )
        assert host.health()["deployment"] == deployment
        project.who.run("env", "delete", "ADDED", folder=project.folder)
        assert host.end() == 0


def test_a_host_waits_for_a_platform_that_is_away_and_serves_on_when_it_goes(
    host: HostProcess, project: Project, platform: PlatformServer
) -> None:
    key = project.api_key()
    deployment = project.deploy("one")
    platform.end(signal.SIGKILL)
    try:
        with hosting(host):
            assert "the token is looked at when it answers" in host.log.read_text()
            time.sleep(1)
            assert host.health()["state"] == "waiting"
            assert host.metric("cloister_host_platform_known") == 0
            platform.start()
            host.wait_for(deployment)
            platform.end(signal.SIGKILL)
            wait_until(lambda: host.metric("cloister_host_platform_known") == 0, 60, "the loss")
            got = requests.get(
                f"{host.url}/", verify=host.ca_file, headers={"api-key": key}, timeout=20
            )
            assert got.status_code == 200
            assert host.get("/health")[0] == 200
            assert host.end() == 0
    finally:
        if platform.process is None:
            platform.start()


def test_a_stop_lets_a_request_finish_and_leaves_nothing(
    host: HostProcess, project: Project
) -> None:
    key, deployment = project.api_key(), project.deploy("one")
    with hosting(host):
        host.wait_for(deployment)
        assert host.process is not None
        below = descendants(host.process.pid)
        assert below
        address = host.url.removeprefix("https://").rpartition(":")
        half_sent = HalfSent(host, key)
        host.send(signal.SIGTERM)
        time.sleep(2)
        answer = half_sent.finish()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer.lower()
        assert host.process.wait(60) == 0
        host.process.communicate()
        host.process = None
    assert not [pid for pid in below if is_alive(pid)]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address[0], int(address[2])), timeout=5)


def test_a_second_signal_ends_everything_at_once(host: HostProcess, project: Project) -> None:
    deployment = project.deploy("one")
    with hosting(host):
        host.wait_for(deployment)
        assert host.process is not None
        below = descendants(host.process.pid)
        address, _, port = host.url.removeprefix("https://").rpartition(":")
        # A handshake that never comes keeps a drain waiting.
        with socket.create_connection((address, int(port)), timeout=5):
            host.send(signal.SIGTERM)
            time.sleep(0.5)
            assert host.end(signal.SIGTERM, seconds=20) == 0
    wait_until(lambda: not [pid for pid in below if is_alive(pid)], 20, "their end")


def test_an_init_that_finds_no_room_leaves_no_file_and_can_be_repeated(
    project: Project, tmp_path: pathlib.Path
) -> None:
    token = tmp_path / "token"
    token.write_text(project.token(f"relay:{project.uuid}"))
    token.chmod(0o600)
    words = ["host", "init", "--token", str(token), "--listen", "127.0.0.1:0", "--dir", "made"]

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))

    with project.who.popen(words, tmp_path, preexec_fn=small_files) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 73, err
    assert [one.name for one in (tmp_path / "made").iterdir()] == ["images"]
    project.who.run(*words, folder=tmp_path)
    written = {one.name for one in (tmp_path / "made").iterdir()}
    assert written == {"images", "host.toml", "token", "platform-ca.pem"}
    _, err = project.who.run(*words, folder=tmp_path, status=78)
    assert "is there already" in err


def test_a_token_that_may_do_more_than_carry_is_refused(
    host: HostProcess, project: Project
) -> None:
    who, words = project.who, ("host", "serve", "--dir", str(host.folder))
    apps = project.platform.owner().apps()
    other = project.platform.owner().add_enclave(UUID(apps[0]["uuid"]), "other")["uuid"]
    kept = (host.folder / "token").read_text()
    for scopes, expected in (
        ([f"relay:{project.uuid}", "owner"], "has the scope `owner`"),
        ([f"relay:{other}"], "is not for the enclave"),
    ):
        (host.folder / "token").write_text(project.token(*scopes))
        _, err = who.run(*words, folder=host.folder, status=78)
        assert expected in err
    (host.folder / "token").write_text(kept)
    (host.folder / "token").chmod(0o644)
    _, err = who.run(*words, folder=host.folder, status=77)
    assert "can be read by others" in err
    (host.folder / "token").chmod(0o600)
    with hosting(host):
        assert host.end() == 0


def test_a_host_of_class_production_takes_no_sandbox_and_no_store(
    host: HostProcess, project: Project, platform: PlatformServer
) -> None:
    path = host.folder / "host.toml"
    text = path.read_text()
    words = ("host", "serve", "--dir", str(host.folder))
    path.write_text(text.replace('class = "development"', 'class = "production"'))
    _, err = project.who.run(*words, folder=host.folder, status=78)
    assert "nobody can attest anything else" in err
    path.write_text(
        text.replace('class = "development"', 'class = "production"')
        .replace('runner = "sandbox"', 'runner = "nitro"')
        .replace("version = 1", f'version = 1\nstate = "{platform.folder}"')
    )
    _, err = project.who.run(*words, folder=host.folder, status=78)
    assert "holds private halves" in err or "is of a development root" in err
    path.write_text(text)


def set_top(host: HostProcess, line: str) -> None:
    """Adds a setting to host.toml."""
    path = host.folder / "host.toml"
    path.write_text(path.read_text().replace("version = 1", f"version = 1\n{line}", 1))


@pytest.mark.filterwarnings("default")  # of boto3 and moto, not ours
def test_objects_in_s3_give_two_hosts_one_tls_key(
    host: HostProcess, project: Project, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    s3.start()
    try:
        address, port = s3.get_host_and_port()
        more = {
            "AWS_ENDPOINT_URL": f"http://{address}:{port}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
            "AWS_DEFAULT_REGION": "eu-west-1",
        }
        for name, value in more.items():
            monkeypatch.setenv(name, value)
        boto3.client("s3").create_bucket(
            Bucket="shared", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )
        other = HostProcess.make(project, tmp_path / "other")
        other.add("one")
        deployment = project.deploy("one")
        for one in (host, other):
            set_top(one, 'objects = "s3://shared/hosts"')
        with hosting(host, **more), hosting(other, **more):
            keys = []
            for one in (host, other):
                one.wait_for(deployment)
                peer = one.url.removeprefix("https://").rpartition(":")
                pem = ssl.get_server_certificate((peer[0], int(peer[2])))
                keys.append(x509.load_pem_x509_certificate(pem.encode()).public_key())
            assert keys[0] == keys[1]
            found = boto3.client("s3").list_objects_v2(Bucket="shared")["Contents"]
            assert all(one["Key"].startswith(f"hosts/{project.uuid}/") for one in found)
            assert not (host.folder / "state" / "objects").exists()
            assert host.end() == 0
            assert other.end() == 0
    finally:
        s3.stop()


def test_two_hosts_do_not_share_a_state(host: HostProcess, project: Project) -> None:
    with hosting(host):
        _, err = project.who.run(
            "host", "serve", "--dir", str(host.folder), folder=host.folder, status=69
        )
        assert "another host uses" in err
        assert host.end() == 0


def _pcrs(project: Project, deployment: str) -> dict[str, str]:
    shown = project.who.json("list", "deployments", folder=project.folder)["deployments"]
    (found,) = (one["pcrs"] for one in shown if one["id"] == deployment)
    return {index: value for index, value in found.items() if index in {"0", "1", "2"}}
