"""An enclave that is provisioned over HTTPS, by a platform that is a process of its own."""

import itertools
import pathlib
import shutil
import signal
import subprocess
import textwrap
import time
from collections.abc import Iterator

import pytest
from tests.support.local_run import EXAMPLE, LocalRun, Somebody, running, wait_until
from tests.support.platform_server import PlatformServer, serving

from cloister.attest import TrustAnchor
from cloister.client import Session

PEM = "-----BEGIN PRIVATE KEY-----\nMIG\"H'A$gEA\\n `x` \u00e4\u6f22\n-----END PRIVATE KEY-----\n"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformServer]:
    who = Somebody(home=tmp_path_factory.mktemp("home"))
    folder = tmp_path_factory.mktemp("platform") / "state"
    with serving(who, folder, "--class", "development") as server:
        yield server


@pytest.fixture(scope="module")
def project(platform: PlatformServer, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("project")
    for name in ("Dockerfile", "hello-enclave"):
        shutil.copy2(EXAMPLE / name, folder / name)
    who = platform.asking()
    who.run("init", "hello", folder=folder)
    who.run("build", folder=folder)
    return folder


def environ_of(run: LocalRun) -> dict[bytes, bytes]:
    """The environment of the user process, to the byte, as the kernel has it."""
    waiting = [run.said["init_pid"]]
    while waiting:
        pid = waiting.pop()
        for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
            waiting += [int(child) for child in task.read_text().split()]
        content = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
        if b"EV_INITIALIZED=true" in content:
            pairs = [one.partition(b"=") for one in content.split(b"\0") if one]
            return {name: value for name, _, value in pairs}
    raise AssertionError("there is no user process")


def session(run: LocalRun, project: pathlib.Path, key: str) -> Session:
    return Session(
        run.said["url"],
        project / "enclave.toml",
        trust_anchor=TrustAnchor.dangerous_root(run.said["nsm_root"]),
        ca_file=run.said["ca_file"],
        api_key=key,
    )


def test_an_enclave_is_provisioned_by_a_platform_elsewhere(
    platform: PlatformServer, project: pathlib.Path
) -> None:
    who = platform.asking()
    key = who.json("key", "create", "--name", "client", folder=project)
    who.run("env", "set", "PLAIN", "one", folder=project)
    who.run("env", "set", "--secret", "PEM", folder=project, given=PEM)
    who.run("env", "set", "EMPTY", "", folder=project)
    assert who.run("env", "set", "--secret", "PEM", "inline", folder=project, status=2)
    with running(who, project) as run:
        assert run.said["api_key"] is None
        with session(run, project, key["api_key"]) as client:
            assert client.get(f"{run.said['url']}/", timeout=20).status_code == 200
            found = environ_of(run)
            assert found[b"PLAIN"] == b"one"
            assert found[b"EMPTY"] == b""
            assert found[b"PEM"] == PEM.encode()
            # A revocation reaches it through the network, as it does within one process.
            who.run("key", "revoke", key["id"], folder=project)
            asked = time.monotonic()
            wait_until(
                lambda: client.get(f"{run.said['url']}/", timeout=20).status_code == 401,
                10,
                "the revocation",
            )
            assert time.monotonic() - asked < 10
        pcrs = run.said["pcrs"]
        tokens = [one for one in platform.owner().tokens() if one["name"] == "cloister run"]
        assert [one["state"] for one in tokens] == ["active"]
        assert tokens[0]["scopes"] == [f"relay:{run.said['uuid']}"]
        assert run.interrupt()[0] == 0
    tokens = [one for one in platform.owner().tokens() if one["name"] == "cloister run"]
    assert [one["state"] for one in tokens] == ["revoked"]
    who.run("env", "set", "PLAIN", "two", folder=project)
    who.run("env", "delete", "EMPTY", folder=project)
    with running(who, project) as run:
        found = environ_of(run)
        assert found[b"PLAIN"] == b"two"
        assert b"EMPTY" not in found
        assert run.said["pcrs"] == pcrs
        assert run.interrupt()[0] == 0
    shown = who.json("platform", "releases", folder=project)["releases"]
    assert [one["reason"] for one in shown].count("provisioned") == 2
    assert all(one["released"] for one in shown)
    changes = who.json("platform", "activity", "--limit", "3", folder=project)["activity"]
    assert len(changes) == 3
    older = who.json(
        "platform", "activity", "--before", str(changes[-1]["id"]), "--limit", "1", folder=project
    )["activity"]
    assert older[0]["id"] < changes[-1]["id"]
    assert "provisioned" in who.run("platform", "releases", folder=project)[0]
    at_rest = (platform.folder / "store.sqlite3").read_bytes()
    assert PEM.encode()[30:60] not in at_rest
    assert b"MIG" not in platform.log.read_bytes()


def test_the_examples_that_are_printed_work_with_a_key_of_the_platform(
    platform: PlatformServer, project: pathlib.Path
) -> None:
    """They had no key, and ended in a 401."""
    who = platform.asking()
    key = who.json("key", "create", "--name", "client", folder=project)["api_key"]
    with who.popen(["run", "--listen", "127.0.0.1:0"], project) as process:
        try:
            assert process.stdout is not None
            ends = ("", "Ctrl-C drains and stops it.\n")
            lines = list(itertools.takewhile(lambda line: line not in ends, process.stdout))
            told = "".join(lines)
            assert "runs: host and runner in this process" in told, told
            assert f"  platform         {platform.url}\n" in told
            assert "cloister key create --name NAME" in told
            curl = next(line.strip() for line in lines if line.startswith("  curl "))
            fixed = " --silent --show-error --max-time 20 --output /dev/null -w '%{http_code}'"
            for words, status in ((curl, "401"), (curl.replace("ck_…", key), "200")):
                done = subprocess.run(words + fixed, shell=True, capture_output=True, check=False)  # noqa: S602
                assert done.stdout.decode() == status, (words, done.stderr)
            sdk = textwrap.dedent(told[told.index("  from cloister.attest") :]).replace("ck_…", key)
            program = sdk.replace("session.get(", "answer = session.get(")
            program += "assert answer.status_code == 200"
            done = subprocess.run(
                [who.python, "-c", program], env=who.environment(), capture_output=True, check=False
            )
            assert done.returncode == 0, done.stderr.decode()
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


def test_an_enclave_outlives_a_platform_that_is_killed_and_comes_back(
    platform: PlatformServer, project: pathlib.Path
) -> None:
    who = platform.asking()
    key = who.json("key", "create", "--name", "client", folder=project)
    with running(who, project) as run, session(run, project, key["api_key"]) as client:
        url = f"{run.said['url']}/"
        assert client.get(url, timeout=20).status_code == 200
        platform.end(signal.SIGKILL)
        assert client.get(url, timeout=20).status_code == 200
        platform.start()
        who.run("key", "revoke", key["id"], folder=project)
        wait_until(lambda: client.get(url, timeout=20).status_code == 401, 60, "the revocation")
        assert run.interrupt()[0] == 0


def test_a_token_that_could_not_be_revoked_is_named(
    platform: PlatformServer, project: pathlib.Path
) -> None:
    who = platform.asking()
    with running(who, project) as run:
        platform.end(signal.SIGKILL)
        status, _, err = run.interrupt()
    platform.start()
    (left,) = [
        one
        for one in platform.owner().tokens()
        if one["name"] == "cloister run" and one["state"] == "active"
    ]
    assert status == 0
    assert f"warning: the token {left['id']} of this run is not known to be revoked" in err
    assert left["expires"] in err
    who.run("platform", "token", "revoke", left["id"], folder=project)
    with running(who, project) as run:
        assert "revoked" not in run.interrupt()[2]


def test_a_production_platform_is_not_for_local_runs(
    project: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    who = Somebody(home=tmp_path)
    with serving(who, tmp_path / "state") as server:
        _, err = server.asking().run("run", folder=project, status=78)
        assert "of class `production`" in err
