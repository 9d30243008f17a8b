"""The guide of exit statuses against the classes that have them."""

import inspect
import json
import pathlib
import re

import pytest

from cloister import errors
from cloister.cli import _failure, main
from cloister.errors import BuildFailed, CloisterError

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "guide" / "exit-statuses.md"
ROW = re.compile(r"^\| (\d+) \|([^|]*)\|", re.MULTILINE)


def told() -> dict[str, int]:
    """Classes of the page, with their statuses."""
    rows = [(int(status), names) for status, names in ROW.findall(PAGE.read_text())]
    named = [(name, status) for status, names in rows for name in re.findall(r"`(\w+)`", names)]
    assert len(named) == len(dict(named)), "a class is named twice"
    return dict(named)


def test_every_class_is_in_the_guide_with_its_status() -> None:
    classes = {
        name: kind.exit_status
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, CloisterError) and kind is not BuildFailed  # its builder's
    }
    assert len(classes) > 20
    assert told() == classes


def test_statuses_without_a_class_are_in_the_guide() -> None:
    statuses = {int(status) for status, _ in ROW.findall(PAGE.read_text())}
    assert statuses - set(told().values()) == {0, main._INTERRUPTED, _failure.PIPE_CLOSED}
    assert "`BuildFailed`" in PAGE.read_text()
    assert BuildFailed("it failed", status=37).exit_status == 37


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["list", "deployments", "--config", "none.toml"], "MissingInput"),
        (["attest", "--no-such-option"], "UsageError"),
        (["describe", "text.eif"], "MalformedImage"),
    ],
)
def test_the_code_of_an_error_is_its_class(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
    code: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.eif").write_text("no image")
    monkeypatch.setenv("CLOISTER_PLATFORM_URL", "https://127.0.0.1:1")
    monkeypatch.setenv("CLOISTER_API_KEY", "cp_x")
    assert main.run([*words, "--json"]) == told()[code]
    assert json.loads(capfd.readouterr().out)["error"]["code"] == code


def test_the_help_says_where_statuses_are_explained(capfd: pytest.CaptureFixture[str]) -> None:
    main.run(["--help"])
    assert "docs/guide/exit-statuses.md" in "".join(capfd.readouterr())
