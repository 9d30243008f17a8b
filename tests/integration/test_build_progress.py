"""What ``cloister build`` shows while it works: a bar on a terminal, else a line a stage."""

import json
import os
import pathlib
import re
import sys

import pytest
from tests.support import saved_images as si
from tests.support.project import Project
from tests.support.terminal import Terminal

BUILD = (sys.executable, "-m", "cloister.cli.main", "build", "--image", "image.tar", "--no-cache")
STAGES = (
    r"`image\.tar` opened \([\d.]+ s\)",
    r"layers, checked and merged \([\d.]+ MiB, [\d.]+ s\)",
    r"image `enclave\.eif` \([\d.]+ MiB, [\d.]+ s\)",
)
COLOR = re.compile(r"\x1b\[[0-9;]*[0-9]m")
BAR = "━"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with an image of some MiB."""
    project = Project(tmp_path_factory.mktemp("project"))
    project.run("init", "hello")
    layer = si.layer(si.file("app", b"program", mode=0o755), si.file("big", bytes(3 << 20)))
    si.docker_save(project.folder / "image.tar", [layer], {"Entrypoint": ["/app"]})
    return project


def drawn(project: Project, *words: str, **environment: str) -> str:
    """What a build draws on a terminal."""
    path = os.pathsep.join(path for path in sys.path if path)
    variables = {"PYTHONPATH": path, **environment}
    with Terminal([*BUILD, *words], project.folder, variables) as terminal:
        assert terminal.end() == 0, terminal.drawn
        return terminal.drawn


def lines(text: str) -> list[str]:
    """Lines as they stay on a terminal: what was drawn over is gone."""
    visible = [line.rpartition("\x1b[2K")[2] for line in text.replace("\r\n", "\n").split("\n")]
    return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in visible]


def test_a_terminal_shows_a_bar_and_keeps_a_line_for_each_stage(project: Project) -> None:
    text = drawn(project)
    assert BAR in text
    assert COLOR.search(text)
    assert re.search(r"[\d.]+ MiB of 3\.0 MiB.* \d+ s", text)
    stayed = [line for line in lines(text) if re.fullmatch("|".join(STAGES), line)]
    assert len(stayed) == len(STAGES), lines(text)
    assert BAR not in "".join(lines(text)[-8:])
    # The cursor that was hidden is there again.
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") > 0


def test_a_file_gets_one_line_a_stage(project: Project) -> None:
    _, told = project.run(*BUILD[3:])
    for stage in STAGES:
        assert len([line for line in told.splitlines() if re.fullmatch(stage, line)]) == 1, told
    assert "\x1b" not in told
    assert BAR not in told


@pytest.mark.parametrize("how", ["NO_COLOR", "--no-color"])
def test_a_bar_without_color_has_none(how: str, project: Project) -> None:
    text = drawn(project, NO_COLOR="1") if how == "NO_COLOR" else drawn(project, how)
    assert BAR in text
    assert COLOR.search(text) is None
    assert COLOR.search(drawn(project))


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(project: Project) -> None:
    text = drawn(project, TERM="dumb")
    assert BAR not in text
    assert "\x1b[?25l" not in text
    assert re.search(STAGES[1], text)


def test_quiet_shows_no_stage_anywhere(project: Project) -> None:
    text = drawn(project, "--quiet")
    assert "layers" not in text
    assert BAR not in text
    assert "PCR0" in text
    assert "layers" not in project.run(*BUILD[3:], "--quiet")[1]


def test_json_is_alone_on_standard_output_beside_a_bar(project: Project) -> None:
    path = os.pathsep.join(path for path in sys.path if path)
    with Terminal(
        [*BUILD, "--json"], project.folder, {"PYTHONPATH": path}, has_output=False
    ) as terminal:
        assert terminal.end() == 0
    (line,) = terminal.output.splitlines()
    assert json.loads(line)["reused"] == "nothing"
    assert BAR in terminal.drawn


def test_an_image_of_the_cache_is_a_stage_with_its_bytes(
    project: Project, tmp_path: pathlib.Path
) -> None:
    build = ("build", "--image", "image.tar", "--output", str(tmp_path / "enclave.eif"))
    project.run(*build)
    told = project.run(*build)[1]
    assert re.search(r"image from the cache, checked \([\d.]+ MiB, [\d.]+ s\)", told)
