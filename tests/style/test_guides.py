"""The pages of docs/guide: every command in them exists, and every link leads somewhere."""

import pathlib
import re
import shlex

import pytest
from tests.support.guide import GUIDES, ROOT, blocks, commands
from typer import TyperException
from typer.core import TyperGroup

from cloister.build.dockerfile.parse import parse as parse_dockerfile
from cloister.cli import main

PAGES = sorted(GUIDES.glob("*.md"))
MENTIONED = re.compile(r"`cloister ([^`\n]+)`")


def parse(words: list[str]) -> None:
    """Parses a command line as ``cloister`` would, and runs nothing.

    Raises:
        TyperException: There is no such command or option, or something is missing.
    """
    group = main._root()
    while isinstance(group, TyperGroup):
        name, *words = words
        command = group.get_command(None, name)
        if command is None:
            raise TyperException(f"there is no command {name}")
        group = command
    context = group.make_context(name, words)
    context.close()


def called(page: pathlib.Path) -> list[list[str]]:
    """Words of every call of ``cloister`` in the blocks of a page."""
    return [call for block in blocks(page) if block.kind == "sh" for call in commands(block.text)]


def mistake(words: list[str], *, may_be_short: bool = False) -> str | None:
    """What is wrong with a command line; a sentence may name one without what it works on."""
    try:
        parse(words)
    except TyperException as problem:
        if may_be_short and type(problem).__name__ == "MissingParameter":
            return None
        return f"{shlex.join(words)}: {problem}"
    return None


def test_there_are_pages_with_commands() -> None:
    names = {page.name for page in PAGES}
    assert "getting-started.md" in names
    assert all(called(page) for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_exists_with_its_options(page: pathlib.Path) -> None:
    named = [shlex.split(call) for call in MENTIONED.findall(page.read_text())]
    wrong = [mistake(call[1:]) for call in called(page)]
    wrong += [mistake(call, may_be_short=True) for call in named]
    assert not [one for one in wrong if one is not None]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file(page: pathlib.Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]
    for file, part in re.findall(r"\]\(([^)#:]+)#([^)]+)\)", page.read_text()):
        titles = re.findall(r"^#+ (.+)$", (page.parent / file).read_text(), re.MULTILINE)
        assert part in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    named = re.findall(r"`((?:tests|rust|docs|bench|examples)/[\w./-]+)`", page.read_text())
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_dockerfile_of_a_page_can_be_read(page: pathlib.Path) -> None:
    for block in blocks(page):
        if block.kind == "dockerfile":
            whole = block.text if block.text.startswith("FROM") else f"FROM scratch\n{block.text}"
            assert parse_dockerfile(whole, f"{page.name}:{block.line}").instructions


def test_a_command_that_does_not_exist_is_noticed() -> None:
    assert mistake(["build", "--builder", "native"]) is None
    for words in (["bild"], ["build", "--bilder", "native"], ["build", "--builder", "none"]):
        assert mistake(words) is not None
    assert mistake(["describe"]) is not None
    assert mistake(["describe"], may_be_short=True) is None


def test_commands_are_found_in_pipes_and_substitutions() -> None:
    text = (
        "T=$(echo 1 | cloister encrypt --type number)\n"
        "A=1 cloister build \\\n  --no-cache > log && ls\n"
        'cloister key revoke "$(cut -f 2 key)"\n'
    )
    assert commands(text) == [
        ["cloister", "encrypt", "--type", "number"],
        ["cloister", "build", "--no-cache"],
        ["cloister", "key", "revoke", "SUBSTITUTED"],
    ]
