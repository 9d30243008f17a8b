"""``cloister env``: exact values, secrets that leave as ciphertexts, and what is refused."""

import io
import json
import pathlib
import sys
import tomllib
import uuid

import pytest

from cloister.cli import main
from cloister.platform import local, variables
from cloister.platform.variables import Variables


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    for name in ("CLOISTER_PLATFORM_URL", "CLOISTER_API_KEY", "EV_APP_UUID", "EV_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert main.run(["init", "hello", "--quiet"]) == 0
    return tmp_path


class Input(io.TextIOWrapper):
    """A standard input that is not a terminal."""


def give(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", Input(io.BytesIO(content)))


def stored(folder: pathlib.Path) -> dict[str, tuple[bytes | None, bool]]:
    database = local.open_store(folder)
    try:
        enclave = uuid.UUID(_toml(folder)["uuid"])
        found = Variables(database, enclave).all()
        return {one.name: (one.value, one.secret) for one in found}
    finally:
        database.close()


def _toml(folder: pathlib.Path) -> dict[str, str]:
    return tomllib.loads((folder / "enclave.toml").read_text())


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\n",
        b"one\n",
        b"-----BEGIN\r\nx\n-----END\n",
        b"$HOME `id` \"q\" 'q' \\n",
        "ä漢".encode(),
        bytes(range(1, 256)),
        b"x" * (96 * 1024),
    ],
    ids=lambda value: repr(value[:10]),
)
def test_a_value_is_kept_to_the_byte(
    folder: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
    value: bytes,
) -> None:
    give(monkeypatch, value)
    assert main.run(["env", "set", "A"]) == 0
    assert stored(folder) == {"A": (value, False)}
    file = folder / "value"
    file.write_bytes(value)
    assert main.run(["env", "set", "B", "--file", str(file)]) == 0
    capfdbinary.readouterr()
    assert main.run(["env", "get", "B"]) == 0
    assert capfdbinary.readouterr().out == value


def test_a_secret_is_stored_as_a_ciphertext_and_never_shown(
    folder: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    give(monkeypatch, b"very secret\n")
    assert main.run(["env", "set", "--secret", "S", "--json"]) == 0
    assert stored(folder) == {"S": (None, True)}
    database = local.open_store(folder)
    enclave = uuid.UUID(_toml(folder)["uuid"])
    with database.reading() as session:
        (kept,) = variables.open_all(session, database.vault, enclave)
    database.close()
    assert variables.CIPHERTEXT.fullmatch(kept.value)
    assert b"very secret" not in kept.value
    assert main.run(["env", "get", "S"]) == 2
    assert main.run(["env", "list", "--json"]) == 0
    said = capfd.readouterr()
    assert "very secret" not in said.out + said.err


def test_t18_a_secret_on_the_command_line_is_refused(
    folder: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["env", "set", "--secret", "S", "very-secret"]) == 2
    assert "very-secret" not in "".join(capfd.readouterr())
    assert stored(folder) == {}
    assert main.run(["env", "set", "S", "not-secret"]) == 0
    assert stored(folder) == {"S": (b"not-secret", False)}


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["set", "1A", "x"], b""),
        (["set", "A-B", "x"], b""),
        (["set", "", "x"], b""),
        (["set", "EV_INITIALIZED", "x"], b""),
        (["set", "A"], b"a\0b"),
        (["set", "A"], b"x" * (96 * 1024 + 1)),
        (["set", "--secret", "A"], b"a\0b"),
        (["set", "--secret", "A"], b"x" * (94 * 1024 + 1)),
        (["import", "-"], b"A=1\nnot a line\n"),
        (["import", "-"], b"A=1\nA=2\n"),
        (["import", "-"], b"A\n"),
        (["import", "-"], b"# nothing\n"),
        (["import", "-"], b"A=\xff\n"),
        (["import", "-"], b"A=1\n1B=2\n"),
        (["import", "none.env"], b""),
        (["delete", "NONE"], b""),
        (["get", "NONE"], b""),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, words: list[str], given: bytes
) -> None:
    give(monkeypatch, given)
    assert main.run(["env", *words]) in {2, 65, 66, 78}
    assert stored(folder) == {}
    assert main.run(["env", "set", "A", "1"]) == 0
    assert stored(folder) == {"A": (b"1", False)}


def test_the_largest_secret_fits_a_bundle(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, b"x" * (94 * 1024))
    assert main.run(["env", "set", "--secret", "A"]) == 0
    assert stored(folder) == {"A": (None, True)}


@pytest.mark.parametrize(
    ("reload", "said"),
    [
        ("none", "a restart of the enclave applies it"),
        ("sighup", "send their process a SIGHUP"),
        ("restart", "start their process again with it"),
    ],
)
def test_a_change_says_what_applies_it(
    folder: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    reload: str,
    said: str,
) -> None:
    """It spoke of a restart of the enclave where `[env] reload` makes one unnecessary."""
    toml = folder / "enclave.toml"
    toml.write_text(toml.read_text() + f'\n[env]\nreload = "{reload}"\n')
    give(monkeypatch, b"B=1\n")
    for words in (["set", "A", "1"], ["import", "-"], ["delete", "A"]):
        capfd.readouterr()
        assert main.run(["env", *words]) == 0
        assert said in capfd.readouterr().out, words


def test_the_help_of_an_import_says_how_quotes_are_read(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It said that they are those of a shell, where a backslash and an n are no line feed."""
    capfd.readouterr()
    main.run(["env", "import", "--help"])
    text = " ".join("".join(capfd.readouterr()).split())
    assert "not as a shell does" in text
    assert r"""Inside "..." \n is a line feed, as are \t, \r, \", \\ and their like""" in text
    assert r"inside '...' only \' and \\ are" in text
    lines = [r'D="a\n\t\r\"\\\q"', r"S='a\n\'\\b'", r"U=a\nb"]
    give(monkeypatch, "\n".join(lines).encode())
    assert main.run(["env", "import", "-"]) == 0
    assert {name: value for name, (value, _) in stored(folder).items()} == {
        "D": b'a\n\t\r"\\\\q',
        "S": b"a\\n'\\b",
        "U": b"a\\nb",
    }


def test_a_file_is_imported_as_its_help_says(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        '# comment\n\nexport PLAIN=one # more\nDOUBLE="two\nlines\\n$HOME"\nSINGLE=\'$x "y"\'\n'
        "EMPTY=\nURL=https://a/b?c=d#e\nUMLAUT=ä\n"
    )
    give(monkeypatch, text.encode())
    assert main.run(["env", "import", "-"]) == 0
    assert {name: value for name, (value, _) in stored(folder).items()} == {
        "PLAIN": b"one",
        "DOUBLE": b"two\nlines\n$HOME",
        "SINGLE": b'$x "y"',
        "EMPTY": b"",
        "URL": b"https://a/b?c=d#e",
        "UMLAUT": "ä".encode(),
    }


def test_an_import_of_secrets_encrypts_each(
    folder: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    give(monkeypatch, b"A=one\nB=two\n")
    assert main.run(["env", "import", "--secret", "-", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["names"] == ["A", "B"]
    assert stored(folder) == {"A": (None, True), "B": (None, True)}
