"""The frame of the command line: start-up, errors, exit statuses, help."""

import json
import os
import pathlib
import resource
import subprocess
import sys
from collections.abc import Mapping
from typing import IO

import pytest
from tests.support.terminal import Terminal

from cloister.cli import main as frame
from cloister.cli.app import Entry, Group

HEAVY = (
    "fastapi",
    "pydantic",
    "alembic",
    "cryptography",
    "sqlalchemy",
    "requests",
    "starlette",
    "uvicorn",
    "tomlkit",
    "cbor2",
    "rich",
)


def cloister(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cloister.cli.main", *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def ended(stdout: IO[bytes], *words: str) -> tuple[int, str]:
    """Exit status and standard error of a command with this standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "cloister.cli.main", *words],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def every_command() -> list[tuple[str, ...]]:
    single = [(name,) for name in frame._COMMANDS]
    grouped = [
        (name, *inner)
        for name, (_, entries, _) in frame._GROUPS.items()
        for inner in below(entries)
    ]
    return single + grouped


def below(entries: Mapping[str, Entry | Group]) -> list[tuple[str, ...]]:
    """Commands of a group, those of groups within it included."""
    found: list[tuple[str, ...]] = []
    for name, entry in entries.items():
        if isinstance(entry, Group):
            found += [(name, *inner) for inner in below(entry.entries)]
        else:
            found.append((name,))
    return found


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


@pytest.mark.parametrize("name", frame._GROUPS)
def test_a_group_of_commands_has_help_with_an_example(name: str) -> None:
    done = cloister(name, "--help")
    assert done.returncode == 0
    assert f"Example:\n    cloister {name} " in done.stdout


def test_the_version_is_told_as_text_and_as_json() -> None:
    text = cloister("--version").stdout.strip()
    (name, version) = text.split()
    assert name == "cloister"
    for words in (("--version", "--json"), ("--json", "--version")):
        assert json.loads(cloister(*words).stdout) == {"version": version}


@pytest.mark.parametrize("words", [("--version",), ("--version", "--json"), ("no", "--json")])
def test_a_full_disk_is_an_error_and_no_traceback(words: tuple[str, ...]) -> None:
    with pathlib.Path("/dev/full").open("wb") as full:
        status, said = ended(full, *words)
    assert status == (2 if words[0] == "no" else 74)
    assert said.startswith("error: ")
    assert "Traceback" not in said
    with pathlib.Path(os.devnull).open("wb") as null:
        assert ended(null, "--version") == (0, "")


def test_a_closed_pipe_ends_as_shells_report_it() -> None:
    """Not with 1, which says that a check failed."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        assert ended(closed, "--help") == (141, "")


@pytest.mark.parametrize("as_json", [False, True])
def test_characters_that_a_terminal_lacks_are_escaped(as_json: bool) -> None:  # noqa: FBT001
    """In JSON they stay JSON."""
    words = ("prüfen→😀", *(["--json"] if as_json else []))
    plain = cloister(*words, PYTHONIOENCODING="ascii")
    assert plain.returncode == 2
    if as_json:
        assert "prüfen→😀" in json.loads(plain.stdout)["error"]["message"]
    else:
        assert r"pr\u00fcfen\u2192\ud83d\ude00" in plain.stderr


@pytest.mark.parametrize(
    ("words", "environment", "has_color"),
    [
        ((), {}, True),
        ((), {"NO_COLOR": ""}, True),
        ((), {"NO_COLOR": "1"}, False),
        (("--no-color",), {}, False),
        (("--quiet",), {}, True),
    ],
)
def test_errors_have_color_on_a_terminal_unless_that_is_declined(
    words: tuple[str, ...],
    environment: dict[str, str],
    has_color: bool,  # noqa: FBT001 - a parameter of the test
    tmp_path: pathlib.Path,
) -> None:
    """A variable that is empty declines nothing (no-color.org)."""
    command = [sys.executable, "-m", "cloister.cli.main", *words, "describe", "none.eif"]
    with Terminal(command, tmp_path, environment) as terminal:
        assert terminal.end() == 66
    assert ("\x1b[31merror:\x1b[0m" in terminal.drawn) is has_color
    assert ("\x1b" in terminal.drawn) is has_color
    assert "there is no image `none.eif`" in terminal.drawn


def test_switches_may_stand_anywhere_before_two_dashes() -> None:
    """What stands behind `--` is an argument, whatever it looks like."""
    for words in (("--quiet", "cert", "show", "none"), ("cert", "show", "none", "--quiet")):
        assert cloister(*words).returncode == 66
    done = cloister("cert", "show", "--", "--quiet")
    assert done.returncode == 66
    assert "`--quiet`" in done.stderr


BROKEN = """
from cloister.cli import main
main._COMMANDS["broken"] = main.Entry("cloister.cli.main", "_COMMANDS", "No function.")
main.main()
"""


def test_a_mistake_of_the_program_has_a_status_of_its_own() -> None:
    """70, never 1: that would say that a check failed."""
    command = [sys.executable, "-c", BROKEN, "broken"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "InternalError"
    assert "internal error at" in error["message"]
    assert "--verbose" in error["hint"]
    assert done.stderr == ""
    done = subprocess.run([*command, "--verbose"], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert "Traceback" in done.stderr
