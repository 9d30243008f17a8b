"""What the documents name exists: tests, files, links, commands."""

import pathlib
import re

import pytest

from cloister.cli import main

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted(ROOT.glob("*.md"))
HELD_NOW = (
    "T-01",
    "T-02",
    "T-03",
    "T-04",
    "T-05",
    "T-06",
    "T-08",
    "T-13",
    "T-14",
    "T-15",
    "T-16",
    "T-17",
    "T-20",
    "T-21",
    "T-23",
)


def test_there_are_pages() -> None:
    names = {page.name for page in PAGES}
    assert {"README.md", "ARCHITECTURE.md", "SECURITY.md", "SPECIFICATION.md"} <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_in_backticks_exists(page: pathlib.Path) -> None:
    named = re.findall(r"`((?:tests|rust|docs|bench|examples)/[\w./-]+)`", page.read_text())
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_resolves(page: pathlib.Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_line_of_the_specification_names_its_test() -> None:
    rows = [
        line
        for line in (ROOT / "SPECIFICATION.md").read_text().splitlines()
        if line.startswith("| ") and not line.startswith(("| promise", "|---"))
    ]
    assert len(rows) > 30
    assert not [row for row in rows if not re.search(r"`(tests|rust)/", row)]


@pytest.mark.parametrize("threat", HELD_NOW)
def test_a_threat_that_is_held_has_a_test_of_its_id(threat: str) -> None:
    prefix = threat.lower().replace("-", "")
    assert list((ROOT / "tests" / "security").glob(f"test_{prefix}_*.py"))
    assert f"| {threat} |" in (ROOT / "SECURITY.md").read_text()


def test_the_readme_names_both_commands_and_every_cloister_command() -> None:
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in readme
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    commands = [*main._COMMANDS, *main._GROUPS]
    assert not [name for name in commands if f"`{name}" not in readme]
