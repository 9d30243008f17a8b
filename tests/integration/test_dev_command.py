"""``cloister dev`` as a process: what it prints, what it refuses, how it ends."""

import contextlib
import json
import pathlib
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from tests.support.application import Application, application

COMMAND = [sys.executable, "-m", "cloister.cli.main", "dev"]


@pytest.fixture
def app() -> Iterator[Application]:
    with application() as running:
        yield running


@contextlib.contextmanager
def running(
    app: Application, *arguments: str, folder: pathlib.Path
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The process and the JSON object it prints; ended when the block ends before it does."""
    process = subprocess.Popen(
        [*COMMAND, "--upstream", app.address, "--listen", "127.0.0.1:0", "--json", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            pytest.fail(process.communicate()[1])
        yield process, json.loads(line)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        process.kill()
        process.communicate()


def refused(*arguments: str, folder: pathlib.Path) -> tuple[int, str]:
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, cwd=folder, check=False, timeout=60
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def get(shown: dict[str, Any], key: str, path: str = "/") -> requests.Response:
    return requests.get(
        shown["url"] + path, headers={"api-key": key}, verify=shown["ca_file"], timeout=10
    )


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_and_warns_that_nothing_is_protected(
    app: Application, tmp_path: pathlib.Path, stop: signal.Signals
) -> None:
    with running(app, folder=tmp_path) as (process, shown):
        assert get(shown, shown["api_key"], "/x").json() == {"path": "/x"}
        assert shown["trust"] == "development"
        process.send_signal(stop)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "warning: nothing protects the data" in said
        assert "stopped: 1 connections, 1 requests" in said
        assert not pathlib.Path(shown["ca_file"]).exists()


def test_a_signal_drains_and_a_second_one_does_not_wait(
    app: Application, tmp_path: pathlib.Path
) -> None:
    with running(app, folder=tmp_path) as (process, shown):

        def slow() -> None:
            with contextlib.suppress(requests.RequestException):
                get(shown, shown["api_key"], "/slow")

        client = threading.Thread(target=slow)
        client.start()
        assert app.entered.wait(10)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while "draining: 1 connections" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.wait(timeout=10)
        assert process.returncode == 0
        client.join(10)


def test_keys_of_a_file_are_accepted_and_not_printed(
    app: Application, tmp_path: pathlib.Path
) -> None:
    keys = [f"ck_k{number}_{secrets.token_urlsafe(32)}" for number in range(2)]
    file = tmp_path / "keys"
    file.write_text("# two keys\n" + "\n".join(keys) + "\n\n")
    with running(app, "--api-key-file", str(file), folder=tmp_path) as (process, shown):
        assert "api_key" not in shown
        assert [get(shown, key).status_code for key in keys] == [200, 200]
        assert get(shown, "ck_other").status_code == 401
        process.send_signal(signal.SIGTERM)
        out, said = process.communicate(timeout=20)
        assert not any(key in out + said for key in keys)


def test_an_enclave_toml_decides(app: Application, tmp_path: pathlib.Path) -> None:
    uuids = "".join(
        f'{name} = "0d5a2a8e-6a51-4f3b-bf0f-4d8c3f0a9e33"\n'
        for name in ("uuid", "app_uuid", "team_uuid")
    )
    toml = f'version = 1\nname = "open"\napi_key_auth = false\n{uuids}'
    toml += f'[trust]\nservice_keys = ["{"A" * 43}="]\n'
    (tmp_path / "enclave.toml").write_text(toml)
    with running(app, folder=tmp_path) as (_, shown):
        assert shown["uuid"] == "0d5a2a8e-6a51-4f3b-bf0f-4d8c3f0a9e33"
        assert requests.get(shown["url"], verify=shown["ca_file"], timeout=10).status_code == 200


def test_metrics_and_internal_api_are_where_they_were_asked_for(
    app: Application, tmp_path: pathlib.Path
) -> None:
    asked = ("--metrics-listen", "127.0.0.1:0", "--internal-api", "127.0.0.1:0")
    with running(app, *asked, folder=tmp_path) as (_, shown):
        metrics = requests.get(f"http://{shown['metrics']}/metrics", timeout=10)
        assert 'cloister_state{state="ready"} 1' in metrics.text
        info = requests.get(f"http://{shown['internal_api']}/info", timeout=10).json()
        assert info["uuid"] == shown["uuid"]


def test_logs_go_where_they_were_asked_for(app: Application, tmp_path: pathlib.Path) -> None:
    with running(app, "--logs", "trx.ndjson", folder=tmp_path) as (process, shown):
        context = get(shown, shown["api_key"]).headers["x-evervault-ctx"]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert json.loads((tmp_path / "trx.ndjson").read_text())["txid"] == context


@pytest.mark.parametrize("option", ["--listen", "--metrics-listen", "--internal-api"])
def test_an_address_that_is_not_loopback_needs_the_dangerous_word(
    app: Application, tmp_path: pathlib.Path, option: str
) -> None:
    for address in ("0.0.0.0:0", "[::]:0", "example.com:0"):
        status, said = refused("--upstream", app.address, option, address, folder=tmp_path)
        assert status == 2
        assert "not a loopback address" in said
        assert "--dangerous-listen" in said
    arguments = ("--dangerous-listen", option, "0.0.0.0:0")
    with running(app, *arguments, folder=tmp_path) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert "other machines can connect" in process.communicate(timeout=20)[1]


def test_only_development_app_keys_are_taken(app: Application, tmp_path: pathlib.Path) -> None:
    key = {"class": "development", "curve": "P-256", "private": "AQ" + "E" * 41 + "="}
    marked, production = tmp_path / "dev.json", tmp_path / "production.json"
    marked.write_text(json.dumps(key))
    production.write_text(json.dumps({**key, "class": "production"}))
    with running(app, "--app-key", str(marked), folder=tmp_path) as (_, shown):
        assert len(bytes.fromhex(shown["app_public_key"])) == 33
    arguments = ("--upstream", app.address, "--listen", "127.0.0.1:0", "--app-key")
    status, said = refused(*arguments, str(production), folder=tmp_path)
    assert status == 65
    assert "not marked" in said


def test_a_wrong_call_says_what_is_wrong(app: Application, tmp_path: pathlib.Path) -> None:
    upstream = ("--upstream", app.address)
    assert refused(folder=tmp_path)[0] == 2
    assert refused("--upstream", "nonsense", folder=tmp_path)[0] == 2
    status, said = refused(*upstream, "--cert", "x.pem", folder=tmp_path)
    assert (status, "--cert and --key go together" in said) == (2, True)
    assert refused(*upstream, "--config", "none.toml", folder=tmp_path)[0] == 66
    assert refused(*upstream, "--api-key-file", "none", folder=tmp_path)[0] == 66
    with running(app, folder=tmp_path) as (_, shown):
        status, said = refused(*upstream, "--listen", shown["address"], folder=tmp_path)
        assert status not in {0, 1, 2}
        assert "in use" in said
