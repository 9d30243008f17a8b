"""The frame of the command line: start-up, errors, exit statuses, help."""

import json
import resource
import subprocess
import sys

import pytest

from cloister.cli import main as frame

HEAVY = (
    "cryptography",
    "sqlalchemy",
    "requests",
    "starlette",
    "uvicorn",
    "tomlkit",
    "cbor2",
    "rich",
)


def cloister(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cloister.cli.main", *words],
        capture_output=True,
        text=True,
        check=False,
    )


def every_command() -> list[tuple[str, ...]]:
    single = [(name,) for name in frame._COMMANDS]
    grouped = [(name, inner) for name, (_, entries) in frame._GROUPS.items() for inner in entries]
    return single + grouped


def test_help_lists_every_command_and_imports_none() -> None:
    script = (
        "import sys; from cloister.cli.main import run; run(['--help']);"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert all(name in done.stdout for name in (*frame._COMMANDS, *frame._GROUPS))
    assert done.stderr.strip() == "[]"


def cpu_seconds(*command: str) -> float:
    """CPU time of one process, user and system, by the kernel's own account of ended children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_costs_less_than_150_ms_beyond_bare_python() -> None:
    """Processor time and the minimum of several runs: the machine may be busy."""
    help_ = min(cpu_seconds("-m", "cloister.cli.main", "--help") for _ in range(7))
    bare = min(cpu_seconds("-c", "pass") for _ in range(7))
    assert help_ - bare < 0.150


def test_an_unknown_command_is_a_usage_error() -> None:
    done = cloister("frobnicate")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "error:" in done.stderr
    assert "frobnicate" in done.stderr
    assert "hint:" in done.stderr


def test_an_error_is_one_json_object_when_json_was_asked_for() -> None:
    done = cloister("frobnicate", "--json")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "UsageError"
    assert error["hint"]


def test_no_command_shows_how_to_call_one() -> None:
    done = cloister()
    assert done.returncode == 2
    assert "Usage: cloister" in done.stderr


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_command_has_help_with_an_example_and_takes_json(words: tuple[str, ...]) -> None:
    done = cloister(*words, "--help")
    assert done.returncode == 0, done.stderr
    assert "Example:" in done.stdout
    assert "--json" in done.stdout


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_an_unknown_option_is_a_usage_error_of_every_command(words: tuple[str, ...]) -> None:
    done = cloister(*words, "--no-such-option")
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr
