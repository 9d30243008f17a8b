"""``cloister logs``: what it shows, what it refuses, how it ends."""

import datetime as dt
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from cloister.cli import _log_line

UUID = "0d5a2a8e-6a51-4f3b-bf0f-4d8c3f0a9e33"
TOML = f"""version = 1
name = "hello"
uuid = "{UUID}"
"""


@pytest.fixture
def project(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "enclave.toml").write_text(TOML)
    folder = tmp_path / ".cloister" / "dev" / "logs" / UUID
    folder.mkdir(parents=True)
    now_ms = time.time_ns() // 1_000_000
    write(
        tmp_path,
        {"segment": 1},
        record(1, ts=now_ms - 7_200_000, responseCode=200, statusGroup="2XX"),
        record(2, ts=now_ms - 1000, responseCode=404, statusGroup="4XX"),
    )
    return tmp_path


def record(sequence: int, **more: Any) -> dict[str, Any]:
    made = {"sequence": sequence, "txid": f"{sequence:032X}", "uri": f"/{sequence}"}
    return made | {"requestMethod": "GET", "elapsed": 1.5, "remoteIp": "192.0.2.1"} | more


def write(project: pathlib.Path, *records: dict[str, Any]) -> None:
    path = project / ".cloister" / "dev" / "logs" / UUID / "0000000001.ndjson"
    with path.open("a") as file:
        file.writelines(json.dumps(each) + "\n" for each in records)


def start(project: pathlib.Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cloister.cli.main", "logs", *words],
        cwd=project,
        env=os.environ | {"NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def shown(project: pathlib.Path, *words: str, status: int = 0) -> str:
    with start(project, *words) as process:
        out, err = process.communicate(timeout=30)
    assert process.returncode == status, err
    return out if status == 0 else err + out


def test_records_are_shown_and_chosen(project: pathlib.Path) -> None:
    first, second = shown(project).splitlines()
    assert first.endswith(f" 200 GET /1 1.5ms 192.0.2.1 {1:032X}")
    assert dt.datetime.fromisoformat(first.split()[0]).tzinfo is not None
    assert " 404 GET /2 " in second
    assert shown(project, "--since", "1h").splitlines() == [second]
    assert shown(project, "--until", "1h").splitlines() == [first]
    assert shown(project, "--status", "4xx", "--status", "500").splitlines() == [second]
    # A client that sent an id of its own is answered with both.
    assert shown(project, "--ctx", f"mine;{1:032x}").splitlines() == [first]
    assert json.loads(shown(project, "--ctx", f"{2:032X}", "--json"))["sequence"] == 2


@pytest.mark.parametrize(
    "words",
    [
        ("--ctx", "12"),
        ("--since", "yesterday"),
        ("--status", "ok"),
        ("--follow", "--until", "1h"),
    ],
)
def test_what_cannot_be_meant_is_refused(project: pathlib.Path, words: tuple[str, ...]) -> None:
    assert "expected" in shown(project, *words, status=2) or "--follow" in words


def test_following_ends_with_ctrl_c_and_its_status(project: pathlib.Path) -> None:
    with start(project, "--follow", "--since", "1h", "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["sequence"] == 2
        write(project, record(3, ts=time.time_ns() // 1_000_000))
        assert json.loads(process.stdout.readline())["sequence"] == 3
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130
        assert process.stderr.read() == ""


def test_without_a_run_there_are_no_logs(tmp_path: pathlib.Path) -> None:
    (tmp_path / "enclave.toml").write_text(TOML)
    assert shown(tmp_path) == ""
    (tmp_path / "enclave.toml").write_text('version = 1\nname = "hello"\n')
    assert "no `uuid`" in shown(tmp_path, status=78)


def test_t20_a_line_holds_nothing_that_a_terminal_obeys() -> None:
    """A client chooses path and method; one line stays one line, of the same fields."""
    evil = "/a\n2026-01-01 200\x1b[2K\x9b31m\u202e\u2028 b\t"
    made = _log_line.line(record(1, ts=0, uri=evil, requestMethod="G\rT", responseCode=None))
    assert made.isprintable()
    fields = made.split(" ")
    assert len(fields) == 7
    assert fields[0] == "1970-01-01T00:00:00.000Z"
    assert fields[1] == "-"
    for odd in ({"ts": 10**30}, {"ts": "x"}, {"ts": None}):
        assert _log_line.line(record(1) | odd).startswith("- ")


def test_the_line_of_a_session_says_what_it_is() -> None:
    session = {"ts": 1, "requestType": "TCP", "requestMethod": None, "uri": None, "elapsed": 2.5}
    assert _log_line.line(session) == "1970-01-01T00:00:00.001Z - TCP - 2.5ms - -"
