"""A page of docs/guide as a script: its fenced blocks, in order.

``sh`` and ``python`` blocks are commands; a ``text`` block is what the commands before it print.
A second word says how: ``install`` and ``elsewhere`` are not run by tests (they need a network, or
what a reader has), ``background`` runs until the end of the page.
"""

import dataclasses
import itertools
import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).resolve().parents[2]
GUIDES = ROOT / "docs" / "guide"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block.

    Args:
        line: Where it starts.
        kind: ``sh``, ``python``, ``text`` or another language, which nobody runs.
        how: ``install``, ``elsewhere``, ``background`` or nothing.
        text: What is in it.
        shown: The output that the page shows below it; ``None``: none.
    """

    line: int
    kind: str
    how: str
    text: str
    shown: str | None = None

    @property
    def is_followed(self) -> bool:
        """Whether a test does what it says."""
        return self.kind in ("sh", "python") and self.how not in ("install", "elsewhere")


def blocks(page: pathlib.Path) -> list[Block]:
    """The blocks of a page, each with the output shown below it."""
    found: list[Block] = []
    text = page.read_text()
    for fence in re.finditer(r"^```(\w*) ?(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        kind, how, inner = fence.groups()
        line = text[: fence.start()].count("\n") + 1
        if kind == "text" and found:
            found[-1] = dataclasses.replace(found[-1], shown=inner)
        else:
            found.append(Block(line=line, kind=kind, how=how, text=inner))
    return found


def is_shown(shown: str, printed: str) -> bool:
    """Whether what was printed is what a page shows; ``…`` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in shown.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


def commands(text: str) -> list[list[str]]:
    """Words of every call of ``cloister`` in a shell script, without variables and redirections."""
    left = re.sub(r"\\\n\s*", " ", text)
    scripts = []
    while inner := re.search(r"\$\(([^()]*)\)", left):
        scripts.append(inner[1])
        left = left[: inner.start()] + "SUBSTITUTED" + left[inner.end() :]
    lines = [line for script in [*scripts, left] for line in script.splitlines()]
    return [call for line in lines for call in _calls(line)]


def _calls(line: str) -> list[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    calls: list[list[str]] = [[]]
    is_redirected = False
    for word in lexer:
        if set(word) <= set("<>"):
            is_redirected = True
        elif set(word) <= set("|;&()"):
            is_redirected = False
            calls.append([])
        elif not is_redirected:
            calls[-1].append(word)
    found = []
    for call in calls:
        words = list(itertools.dropwhile(ASSIGNED.match, call))
        if words and words[0] == "cloister":
            found.append(words)
    return found


ASSIGNED = re.compile(r"\w+=")
