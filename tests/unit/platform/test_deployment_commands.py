"""``cloister platform deployment`` and ``cloister list deployments``: when an image ends."""

import pathlib

import pytest

from cloister.cli import main


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    for name in ("CLOISTER_PLATFORM_URL", "CLOISTER_API_KEY", "EV_APP_UUID", "EV_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert main.run(["init", "hello", "--quiet"]) == 0
    return tmp_path


def built(folder: pathlib.Path, digit: str) -> None:
    """Registers in enclave.toml, as a build writes them."""
    path = folder / "enclave.toml"
    lines = [
        line
        for line in path.read_text().splitlines()
        if not line.startswith(("[attestation]", "HashAlgorithm", "PCR"))
    ]
    registers = [f'PCR{index} = "{digit * 96}"' for index in (0, 1, 2)]
    path.write_text("\n".join([*lines, "[attestation]", *registers, ""]))


def said(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert main.run(list(words)) == status
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_a_list_shows_which_image_ends_by_itself_and_when(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create = ("platform", "deployment", "create")
    built(folder, "a")
    said(capsys, *create)
    built(folder, "b")
    said(capsys, *create, "--until", "2999-12-31T00:00:00Z")
    lines = said(capsys, "list", "deployments")[0].splitlines()
    assert [line.partition("PCR0 ")[2] for line in lines] == [
        "aaaaaaaaaaaaaaaa…",
        "bbbbbbbbbbbbbbbb…  until 2999-12-31T00:00:00Z",
    ]


@pytest.mark.parametrize("text", ["nope", "1x"])
def test_an_end_that_is_none_is_told_what_it_may_be(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    built(folder, "a")
    words = ("platform", "deployment", "create", "--until", text)
    err = said(capsys, *words, status=2)[1]
    assert "--until: expected a length of time as 90d" in err
    assert "or a time as 2026-12-31T00:00:00Z" in err
    assert said(capsys, "list", "deployments")[0] == "there are no deployments\n"
