"""Words of systemd's units, and what systemd itself reads."""

import json
import pathlib
import re
import shutil
import subprocess

import pytest

from cloister.cli import _unit_text, main
from cloister.errors import UsageError

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")

WORDS = {
    "plain/a-b_c.d": "plain/a-b_c.d",
    "two words": '"two words"',
    "100%": "100%%",
    "%h and %%": '"%%h and %%%%"',
    'say "yes"': '"say \\"yes\\""',
    "it's": '"it\'s"',
    "back\\slash": '"back\\\\slash"',
    "ends with\\": '"ends with\\\\"',
    "\\x20": '"\\\\x20"',
    "$HOME": "$HOME",
    "${HOME} #1": '"${HOME} #1"',
    ";": '";"',
    "grün": '"grün"',
    "": '""',
}


def service(**settings: str) -> str:
    """A unit with these settings."""
    return "\n".join(["[Service]", *(f"{name}={value}" for name, value in settings.items()), ""])


def analyzed(folder: pathlib.Path, text: str) -> list[str]:
    """What systemd says of a unit."""
    assert ANALYZE is not None
    unit = folder / "tried.service"
    unit.write_text(text)
    words = [ANALYZE, "verify", str(unit)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    return done.stderr.splitlines()


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_quoted_where_it_must_be(word: str) -> None:
    assert _unit_text.quoted(word) == WORDS[word]


@needs_systemd
@pytest.mark.parametrize("word", [word for word in WORDS if word])
def test_systemd_reads_the_word(tmp_path: pathlib.Path, word: str) -> None:
    """It repeats a path that is not absolute, as it understood it."""
    quoted = _unit_text.quoted(word)
    said = analyzed(tmp_path, service(ExecStart="/bin/true", ReadWritePaths=f"{quoted} {quoted}"))
    assert [line.partition("path is not absolute, ignoring: ")[2] for line in said[:2]] == [
        word
    ] * 2


@needs_systemd
def test_systemd_reads_the_program(tmp_path: pathlib.Path) -> None:
    program = f"{tmp_path}/no $such % program; here"
    line = _unit_text.command_line([program, ";", "/another"])
    (said,) = analyzed(tmp_path, service(ExecStart=line))
    assert f"Command {program} is not executable" in said


def test_an_argument_has_no_variable() -> None:
    line = _unit_text.command_line(["/opt/$a/b", "$HOME", "${A} %i", "x"])
    assert line == '/opt/$a/b $$HOME "$${A} %%i" x'


@pytest.mark.parametrize("word", ["a\nUser=root", "a\tb", "a\x7f", "\udc80"])
def test_what_a_unit_cannot_hold_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="cannot be in a unit"):
        _unit_text.quoted(word)
    with pytest.raises(UsageError, match="cannot be in a unit"):
        _unit_text.command_line(["/bin/true", word])


@pytest.mark.parametrize("program", ["cloister", "", "/o'brien/cloister", '/a"b', "/a\\b"])
def test_a_program_that_systemd_does_not_run_is_refused(program: str) -> None:
    with pytest.raises(UsageError, match="systemd does not run"):
        _unit_text.command_line([program])


FOLDERS = ["state", 'a %h "$HOME" \\x']


KINDS = ["platform", "host"]


def unit(kind: str, folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What ``cloister platform unit`` or ``cloister host unit`` prints."""
    assert main.run([kind, "unit", "--dir", str(folder), "--json"]) == 0
    return str(json.loads(capsys.readouterr().out)["unit"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FOLDERS)
def test_a_unit_names_its_folder(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    text = unit(kind, tmp_path / name, capsys)
    settings = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
    written = _unit_text.quoted(str(tmp_path / name))
    assert settings["ReadWritePaths"].split(" ", 1)[0] == written.split(" ", 1)[0]
    assert written in settings["ReadWritePaths"]
    assert settings["ExecStart"].endswith(f" {kind} serve --dir {written.replace('$', '$$')}")


@needs_systemd
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FOLDERS)
def test_systemd_takes_a_unit(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    text = unit(kind, tmp_path / name, capsys)
    text = re.sub(rf"(?m)^ExecStart=.*?(?= {kind} serve)", "ExecStart=/bin/true", text)
    assert f" {kind} serve --dir " in text
    assert analyzed(tmp_path, text) == []
    assert analyzed(tmp_path, text.replace("ReadWritePaths=", "ReadWritePaths=not-")) != []
