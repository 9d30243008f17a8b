"""``cloister run`` whole, as processes: from a Dockerfile to an enclave that clients talk to."""

import contextlib
import hashlib
import json
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import textwrap
import time
import tomllib
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests
from tests.support.local_run import (
    LocalRun,
    Somebody,
    is_alive,
    make_project,
    running,
    wait_until,
)

from cloister import crypto
from cloister.attest import TrustAnchor
from cloister.client import Session
from cloister.errors import DebugEnclave


@pytest.fixture(scope="module")
def who(tmp_path_factory: pytest.TempPathFactory) -> Somebody:
    return Somebody(home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, who: Somebody) -> pathlib.Path:
    return make_project(tmp_path_factory.mktemp("built"), who)


@pytest.fixture(scope="module")
def enclave(built: pathlib.Path, who: Somebody) -> Iterator[LocalRun]:
    """One enclave for the tests that leave it as it was."""
    with running(who, built) as run:
        yield run


@pytest.fixture
def project(built: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy that a test may spoil, with the store and the image."""
    return pathlib.Path(shutil.copytree(built, tmp_path / "copy"))


def leftovers() -> set[str]:
    return {str(path) for path in pathlib.Path(tempfile.gettempdir()).glob("cloister-run-*")}


def session(enclave: LocalRun, project: pathlib.Path) -> Session:
    return Session(
        enclave.said["url"],
        project / "enclave.toml",
        trust_anchor=TrustAnchor.dangerous_root(enclave.said["nsm_root"]),
        ca_file=enclave.said["ca_file"],
        api_key=enclave.said["api_key"],
    )


def test_an_attesting_client_posts_encrypted_fields(enclave: LocalRun, built: pathlib.Path) -> None:
    clear = {"name": "Ada", "number": 4242424242424242, "ratio": 0.5, "agreed": True}
    sealed = crypto.encrypt(clear, bytes.fromhex(enclave.said["app_public_key"]))
    assert all(value.startswith("ev:") for value in sealed.values())
    with session(enclave, built) as client:
        answer = client.post(f"{enclave.said['url']}/hello", json=sealed, timeout=20)
    assert answer.status_code == 200, answer.text
    assert answer.json()["saw"] == clear
    assert answer.json()["initialized"] is True
    assert "api-key" not in answer.json()["header_names"]


def test_curl_gets_an_answer_and_its_log_line(enclave: LocalRun) -> None:
    status, body = enclave.curl("/hello", "-D", "-", "-H", "content-type: text/plain", "-d", "x")
    assert status == 200, body
    (context,) = [
        line.split(":")[1].strip()
        for line in body.splitlines()
        if line.lower().startswith("x-evervault-ctx:")
    ]
    assert len(context) == 32
    folder = pathlib.Path(enclave.said["log_dir"])

    def arrived() -> list[str]:
        lines = [line for file in folder.glob("*.ndjson") for line in file.read_text().splitlines()]
        return [line for line in lines if context in line]

    wait_until(arrived, 10, "the log line")
    (line,) = arrived()
    assert json.loads(line)["uri"] == "/hello"
    assert enclave.said["api_key"] not in line


@pytest.mark.parametrize("key", ["", "nonsense", "ck_0123456789abcdef_" + "A" * 43])
def test_other_api_keys_are_refused(enclave: LocalRun, key: str) -> None:
    assert enclave.curl("/", key=key or None)[0] == 401
    assert enclave.curl("/")[0] == 200


def test_openssl_sees_tls_13_and_a_chain_to_the_printed_root(enclave: LocalRun) -> None:
    address = urlsplit(enclave.said["url"]).netloc
    checks = ["-CAfile", enclave.said["ca_file"], "-verify_return_error", "-verify_ip", "127.0.0.1"]
    done = subprocess.run(
        ["openssl", "s_client", "-connect", address, *checks, "-brief"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert "TLSv1.3" in done.stderr
    assert "Verification: OK" in done.stderr


def test_another_root_does_not_verify(enclave: LocalRun) -> None:
    """The twin of the test above: the printed root is the only reason that it passes."""
    host, _, port = urlsplit(enclave.said["url"]).netloc.partition(":")
    with (
        socket.create_connection((host, int(port)), timeout=20) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        ssl.create_default_context().wrap_socket(plain, server_hostname=host)


def test_a_new_key_and_a_revoked_key_arrive_within_five_seconds(
    enclave: LocalRun, built: pathlib.Path, who: Somebody
) -> None:
    made = who.json("key", "create", "--name", "second", folder=built)
    wait_until(lambda: enclave.curl("/", key=made["api_key"])[0] == 200, 5, "the new key works")
    who.run("key", "revoke", made["id"], folder=built)
    wait_until(lambda: enclave.curl("/", key=made["api_key"])[0] == 401, 5, "the key is refused")
    assert enclave.curl("/")[0] == 200


def test_the_same_folder_does_not_run_twice(
    enclave: LocalRun, built: pathlib.Path, who: Somebody
) -> None:
    error = who.json("run", "--listen", "127.0.0.1:0", folder=built, status=69)["error"]
    assert "runs already" in error["message"]
    assert enclave.curl("/")[0] == 200


def test_a_second_run_that_is_refused_changes_nothing_for_the_first(
    project: pathlib.Path, who: Somebody
) -> None:
    """It would end the deployment of what runs, and stay refused itself."""
    listing = ("list", "deployments")
    with running(who, project) as run:
        # Another image of the same enclave, as after a build beside the run.
        dockerfile = project / "Dockerfile"
        dockerfile.write_text(f"{dockerfile.read_text()}ENV SECOND=yes\n")
        who.run("build", folder=project)
        before = who.json(*listing, folder=project)
        assert [one["active"] for one in before["deployments"]].count(True) == 1
        error = who.json("run", "--listen", "127.0.0.1:0", folder=project, status=69)["error"]
        assert "runs already" in error["message"]
        assert who.json(*listing, folder=project) == before
        assert run.curl("/")[0] == 200
        assert run.interrupt()[0] == 0
    # Nothing else was in its way: with the first gone it runs, and is what is released to.
    with running(who, project) as run:
        after = who.json(*listing, folder=project)["deployments"]
        registers = {name.removeprefix("PCR"): value for name, value in run.said["pcrs"].items()}
        assert [one["pcrs"] for one in after if one["active"]] == [registers]
        assert len(after) == len(before["deployments"]) + 1
        assert run.interrupt()[0] == 0


def test_a_port_in_use_is_said_before_anything_starts(
    enclave: LocalRun, project: pathlib.Path, who: Somebody
) -> None:
    address = urlsplit(enclave.said["url"]).netloc
    before = leftovers()
    error = who.json("run", "--listen", address, folder=project, status=69)["error"]
    assert "in use" in error["message"]
    assert leftovers() == before


def test_ctrl_c_leaves_nothing_behind(project: pathlib.Path, who: Somebody) -> None:
    before = leftovers()
    with running(who, project) as run:
        pid = run.said["init_pid"]
        assert is_alive(pid)
        assert leftovers() != before
        assert run.curl("/")[0] == 200
        status, _, err = run.interrupt()
    assert status == 0, err
    assert not is_alive(pid)
    assert leftovers() == before


def test_sigterm_lets_a_request_finish(project: pathlib.Path, who: Somebody) -> None:
    with running(who, project) as run:
        host, _, port = urlsplit(run.said["url"]).netloc.partition(":")
        context = ssl.create_default_context(cafile=run.said["ca_file"])
        with (
            socket.create_connection((host, int(port)), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname=host) as stream,
        ):
            head = f"POST /hello HTTP/1.1\r\nhost: x\r\napi-key: {run.said['api_key']}\r\n"
            stream.sendall(f"{head}content-length: 4\r\n\r\nab".encode())
            wait_until(lambda: run.curl("/")[0] == 200, 10, "another request meanwhile")
            run.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not accepts(host, int(port)), 10, "no new clients")
            stream.sendall(b"cd")
            answer = b"".join(iter(lambda: stream.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
        assert b"abcd" in answer
        run.process.communicate(timeout=60)
    assert run.process.returncode == 0


def accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def test_the_enclave_dies_with_a_killed_command(project: pathlib.Path, who: Somebody) -> None:
    before = leftovers()
    with running(who, project) as run:
        pid = run.said["init_pid"]
        run.process.kill()
        run.process.wait(10)
        wait_until(lambda: not is_alive(pid), 10, "the enclave is gone")
        wait_until(lambda: leftovers() == before, 10, "the run directory is gone")
    with running(who, project) as again:
        assert again.curl("/")[0] == 200


def test_an_enclave_that_dies_ends_the_command(project: pathlib.Path, who: Somebody) -> None:
    with running(who, project) as run:
        subprocess.run(["kill", "-9", str(run.said["init_pid"])], check=True)
        out, _ = run.process.communicate(timeout=30)
    assert run.process.returncode == 69
    assert "the enclave ended" in json.loads(out)["error"]["message"]


def test_an_image_of_another_build_is_refused(project: pathlib.Path, who: Somebody) -> None:
    toml = project / "enclave.toml"
    text = toml.read_text()
    pcr0 = tomllib.loads(text)["attestation"]["PCR0"]
    toml.write_text(text.replace(pcr0, "ab" * 48))
    error = who.json("run", folder=project, status=78)["error"]
    assert "PCR0 is abababababababab… in enclave.toml" in error["message"]
    assert "cloister build" in error["hint"]


@pytest.mark.parametrize("at", [0, 300, -1])
def test_a_corrupted_image_is_refused(project: pathlib.Path, who: Somebody, at: int) -> None:
    image = project / "enclave.eif"
    content = bytearray(image.read_bytes())
    content[at] ^= 0xFF
    image.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    error = who.json("run", folder=project, status=65)["error"]
    assert error["code"] == "MalformedImage", error
    assert hashlib.sha256(image.read_bytes()).hexdigest() == digest


def test_what_is_missing_is_named(project: pathlib.Path, who: Somebody) -> None:
    (project / "enclave.eif").unlink()
    error = who.json("run", folder=project, status=66)["error"]
    assert "enclave.eif" in error["message"]
    assert "cloister build" in error["hint"]
    shutil.rmtree(project / ".cloister")
    (project / "enclave.toml").rename(project / "other.toml")
    error = who.json("run", folder=project, status=66)["error"]
    assert "enclave.toml" in error["message"]


def test_a_folder_copied_without_its_store_is_refused(project: pathlib.Path, who: Somebody) -> None:
    shutil.rmtree(project / ".cloister")
    error = who.json("run", folder=project, status=69)["error"]
    assert "there is no store" in error["message"]
    assert "cloister init" in error["hint"]


@pytest.mark.parametrize("runner", ["qemu", "nitro"])
def test_other_runners_say_when_they_come(built: pathlib.Path, who: Somebody, runner: str) -> None:
    error = who.json("run", "--runner", runner, folder=built, status=2)["error"]
    assert "kernel" in error["message"]


def test_log_lines_are_printed_when_asked_for(project: pathlib.Path, who: Somebody) -> None:
    with running(who, project, "--logs") as run:
        assert run.curl("/")[0] == 200
        status, out, _ = run.interrupt()
    assert status == 0
    (record,) = [json.loads(line) for line in out.splitlines()]
    assert (record["uri"], record["requestMethod"]) == ("/", "GET")


def test_a_client_that_keeps_an_idle_connection_does_not_hold_up_the_end(
    project: pathlib.Path, who: Somebody
) -> None:
    with running(who, project) as run, requests.Session() as client:
        headers = {"api-key": run.said["api_key"]}
        answer = client.get(
            run.said["url"], headers=headers, verify=run.said["ca_file"], timeout=20
        )
        assert answer.status_code == 200
        begun = time.monotonic()
        status, _, _ = run.interrupt()
        # The default grace is 30 s.
        assert time.monotonic() - begun < 15
    assert status == 0


def test_what_it_prints_can_be_pasted(project: pathlib.Path, who: Somebody) -> None:
    process = who.popen(["run", "--listen", "127.0.0.1:0"], project)
    try:
        assert process.stdout is not None
        lines = list(iter(process.stdout.readline, "Ctrl-C drains and stops it.\n"))
        assert any("under a development root" in line for line in lines)
        (curl,) = [line.strip() for line in lines if line.startswith("  curl ")]
        sdk = lines[1 + next(at for at, line in enumerate(lines) if "With the SDK" in line) :]
        (project / "call.py").write_text(
            textwrap.dedent("".join(sdk)).replace("session.get", "answer = session.get")
            + "print(answer.text)\nsession.close()\n"
        )
        for command in (["bash", "-c", f"{curl} -sS"], [sys.executable, "call.py"]):
            done = subprocess.run(
                command,
                cwd=project,
                env=who.environment(),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.stdout.strip() == '{"hello":"enclave"}', (command, done)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_no_secret_is_in_any_argument_or_environment(enclave: LocalRun) -> None:
    secret = enclave.said["api_key"].encode()
    looked_at = 0
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                content = (process / name).read_bytes()
                looked_at += b"cloister" in content
                assert secret not in content, process
    assert looked_at > 2


def test_a_debug_enclave_serves_and_only_a_client_that_asks_for_it_believes_it(
    project: pathlib.Path, who: Somebody
) -> None:
    toml = project / "enclave.toml"
    toml.write_text("debug = true\n" + toml.read_text().replace("debug = false\n", ""))
    who.run("build", folder=project)
    with running(who, project) as run:
        assert run.said["debug"] is True
        assert run.said["pcrs"]["PCR0"] == "0" * 96
        common = {
            "trust_anchor": TrustAnchor.dangerous_root(run.said["nsm_root"]),
            "ca_file": run.said["ca_file"],
            "api_key": run.said["api_key"],
        }
        zero = {"PCR0": "0" * 96}
        with Session(run.said["url"], zero, dangerous_accept_debug=True, **common) as client:
            assert client.get("/", timeout=20).status_code == 200
        for policy in (zero, toml):
            with (
                Session(run.said["url"], policy, **common) as client,
                pytest.raises(DebugEnclave),
            ):
                client.get("/", timeout=20)
        status, _, err = run.interrupt()
    assert status == 0, err
    assert "a debug enclave" in err


def test_what_was_built_counts_and_not_what_was_edited_since(
    project: pathlib.Path, who: Somebody
) -> None:
    toml = project / "enclave.toml"
    toml.write_text(toml.read_text().replace("api_key_auth = true", "api_key_auth = false"))
    with running(who, project) as run:
        assert run.curl("/", key=None)[0] == 401
        assert run.curl("/")[0] == 200
        _, _, err = run.interrupt()
    assert "enclave.toml was changed since the build (api_key_auth)" in err
