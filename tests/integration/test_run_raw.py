"""``cloister run`` without HTTP in the enclave: TCP inside TLS, and TLS passed through.

The application is examples/hello-enclave, which speaks HTTP in clear: with ``tcp`` it is asked
inside the TLS of the enclave, and passed through it is asked without any.
"""

import json
import pathlib
import shutil
import subprocess

import pytest
from tests.support.local_run import EXAMPLE, LocalRun, Somebody, running, wait_until


@pytest.fixture(scope="module")
def who(tmp_path_factory: pytest.TempPathFactory) -> Somebody:
    return Somebody(home=tmp_path_factory.mktemp("home"))


def built(folder: pathlib.Path, who: Somebody, *words: str, settings: str = "") -> pathlib.Path:
    """``init`` with these words and ``build`` with these tables added."""
    project = folder / "hello"
    project.mkdir()
    for name in ("Dockerfile", "hello-enclave"):
        shutil.copy2(EXAMPLE / name, project / name)
    who.run("init", "hello", *words, folder=project)
    toml = project / "enclave.toml"
    toml.write_text(toml.read_text() + settings)
    who.run("build", folder=project)
    return project


def records(run: LocalRun) -> list[dict[str, object]]:
    """The transaction log records on the disk of the host."""
    found: list[dict[str, object]] = []
    for path in sorted(pathlib.Path(run.said["log_dir"]).glob("*.ndjson")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        # The first line of a segment says what it is.
        found += [line for line in lines if "sequence" in line]
    return found


def test_tcp_inside_tls_reaches_the_application_and_is_logged(
    who: Somebody, tmp_path: pathlib.Path
) -> None:
    tcp = '\n[service]\nprotocol = "tcp"\n'
    project = built(tmp_path, who, "--disable-api-key-auth", settings=tcp)
    with running(who, project) as run:
        assert run.said["url"].startswith("tls://")
        assert run.said["api_key"] is None
        address = run.said["listen"].removeprefix("tcp:")
        command = ["openssl", "s_client", "-quiet", "-verify_return_error"]
        command += ["-CAfile", run.said["ca_file"], "-connect", address]
        done = subprocess.run(
            command,
            input=b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            capture_output=True,
            check=False,
            timeout=30,
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), (done.stdout, done.stderr)
        assert body
        # Nothing of HTTP is ours: the head is the application's own.
        assert b"x-evervault-ctx" not in head.lower()
        wait_until(lambda: len(records(run)) == 1, 10, "the record")
        (record,) = records(run)
        assert (record["requestType"], record["remoteIp"]) == ("TCP", "127.0.0.1")
        assert record["bytesOut"] == len(done.stdout)
        status, _, _ = run.interrupt()
        assert status == 0


def test_what_passes_through_is_the_applications_own(who: Somebody, tmp_path: pathlib.Path) -> None:
    project = built(tmp_path, who, "--disable-tls-termination")
    with running(who, project) as run:
        assert run.said["url"].startswith("tcp://")
        address = run.said["listen"].removeprefix("tcp:")
        done = subprocess.run(
            ["curl", "-sS", "-i", "--max-time", "20", f"http://{address}/"],
            capture_output=True,
            check=True,
        )
        assert done.stdout.startswith(b"HTTP/1.1 200")
        assert b"x-evervault-ctx" not in done.stdout.lower()
        # There is no TLS of ours in front.
        refused = subprocess.run(
            ["curl", "-sS", "-k", "--max-time", "20", f"https://{address}/"],
            capture_output=True,
            check=False,
        )
        assert refused.returncode == 35  # CURLE_SSL_CONNECT_ERROR
        status, _, _ = run.interrupt()
        assert status == 0
        assert records(run) == []
