"""``cloister key`` as people call it: what is shown, where, and what is never shown again."""

import json
import pathlib
import uuid

import pytest

from cloister.cli import main as frame
from cloister.platform import local


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    local.init_store(tmp_path, name="hello", uuid=uuid.uuid4())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> tuple[str, str]:
    assert frame.run(list(words)) == status
    captured = capsys.readouterr()
    return captured.out, captured.err


@pytest.mark.usefixtures("folder")
def test_the_secret_is_on_standard_output_once_and_nowhere_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, err = said(capsys, "key", "create", "--name", "ci", "--expires", "90d")
    secret = out.strip()
    assert secret.count("_") >= 2
    assert secret not in err
    for words in (["key", "list"], ["key", "list", "--json"], ["key", "revoke", secret]):
        out, err = said(capsys, *words)
        assert secret.split("_", 2)[2] not in out + err


@pytest.mark.usefixtures("folder")
def test_json_has_stable_keys(capsys: pytest.CaptureFixture[str]) -> None:
    made = json.loads(said(capsys, "key", "create", "--json")[0])
    assert set(made) == {
        *("api_key", "id", "name", "scopes", "state", "created", "expires", "revoked")
    }
    assert made["api_key"].startswith(f"ck_{made['id']}_")
    listed = json.loads(said(capsys, "key", "list", "--json")[0])
    assert listed == {"api_keys": [{key: made[key] for key in made if key != "api_key"}]}
    ended = json.loads(said(capsys, "key", "revoke", made["id"], "--json")[0])
    assert ended["state"] == "revoked"
    assert ended["revoked"] is not None


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        (["create", "--scope", "everything"], 78, "unknown scope"),
        (["create", "--scope", f"enclave:{uuid.UUID(int=1)}"], 66, "no enclave"),
        (["create", "--expires", "soon"], 2, "--expires: expected a length of time as 90d"),
        (["create", "--expires", "2020-01-01T00:00:00Z"], 78, "in the past"),
        (["create", "--name", ""], 78, "printable"),
        (["revoke", "0000"], 66, "no API key with this id"),
    ],
)
def test_mistakes_have_a_status_and_a_message(
    capsys: pytest.CaptureFixture[str], words: list[str], status: int, expected: str
) -> None:
    _, err = said(capsys, "key", *words, status=status)
    assert expected in err
    assert json.loads(said(capsys, "key", "list", "--json")[0]) == {"api_keys": []}


def test_without_a_store_the_hint_is_init(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _, err = said(capsys, "key", "create", status=69)
    assert "there is no store" in err
    assert "cloister init" in err
    assert list(tmp_path.iterdir()) == []
