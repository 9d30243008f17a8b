"""docs/guide/getting-started.md, followed command by command; and what other pages show.

Nothing is fetched: the step that installs is left out, and the package under test stands in for
what it would have installed. Port 8443 is replaced by a free one.
"""

import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import pytest
from tests.support.guide import GUIDES, ROOT, Block, blocks, is_shown

READY = "Ctrl-C drains and stops"
SECONDS = 90


class Terminal:
    """A shell whose folder and variables last from one block to the next."""

    def __init__(self, folder: pathlib.Path, port: int) -> None:
        self.port = port
        self._folder = folder
        home, programs = folder / "home", folder / "bin"
        home.mkdir()
        programs.mkdir()
        for name, words in {
            "cloister": [sys.executable, "-m", "cloister.cli.main"],
            "python": [sys.executable],
        }.items():
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
            program.chmod(0o755)
        self._variables = {
            "HOME": str(home),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "NO_COLOR": "1",
        }
        self._place = ROOT
        self.background: list[tuple[subprocess.Popen[bytes], pathlib.Path]] = []

    def follow(self, block: Block) -> str:
        """Does what a block says and returns what it printed on standard output."""
        text = block.text.replace("8443", str(self.port))
        if block.kind == "python":
            done = self._end(["python", "-c", text], block)
            return done.stdout
        if block.how == "background":
            return self._start(text)
        place, variables = self._folder / "place", self._folder / "variables"
        before = f". {variables}\n" if variables.exists() else ""
        after = f"pwd > {place}\nexport -p > {variables}\n"
        done = self._end(["bash", "-c", f"{before}set -aeuo pipefail\n{text}\n{after}"], block)
        self._place = pathlib.Path(place.read_text().strip())
        return done.stdout

    def _end(self, words: list[str], block: Block) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            words,
            cwd=self._place,
            env=self._variables,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, (block.line, block.text, done.stdout, done.stderr)
        return done

    def _start(self, text: str) -> str:
        said = self._folder / f"said-{len(self.background)}"
        with said.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {text}"],
                cwd=self._place,
                env=self._variables,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.background.append((process, said))
        until = time.monotonic() + SECONDS
        while READY not in said.read_text():
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < until, said.read_text()
            time.sleep(0.1)
        return ""

    def close(self) -> None:
        """Presses Ctrl-C in every terminal that is still busy."""
        for process, _ in self.background:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    if not (ROOT / "examples" / "hello-enclave" / "hello-enclave").exists():
        pytest.skip("the server of the example is not built: make hello")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Short: sockets are made below it.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cloister-test-"))
    made = Terminal(folder, port)
    yield made
    made.close()
    shutil.rmtree(folder)


def follow(terminal: Terminal, page: str) -> int:
    """Follows a page; how many blocks that took."""
    followed = [block for block in blocks(GUIDES / page) if block.is_followed]
    for block in followed:
        printed = terminal.follow(block).replace(str(terminal.port), "8443")
        if block.shown is not None:
            assert is_shown(block.shown, printed), (block.line, block.shown, printed)
    return len(followed)


def test_the_first_page_works_from_its_first_command_to_its_last(terminal: Terminal) -> None:
    assert follow(terminal, "getting-started.md") > 12
    ((process, said),) = terminal.background
    terminal.close()
    assert process.returncode == 0
    assert said.read_text().rstrip().endswith("stopped")


@pytest.mark.parametrize(
    ("page", "least"),
    [
        ("attestation.md", 6),
        ("client.md", 10),
        ("dependencies.md", 5),
        ("encryption.md", 5),
        ("host.md", 8),
        ("platform.md", 9),
        ("reproducible.md", 5),
        ("testing.md", 6),
    ],
)
def test_what_another_page_shows_is_what_happens(terminal: Terminal, page: str, least: int) -> None:
    assert follow(terminal, page) >= least


def test_a_page_that_shows_another_output_is_noticed() -> None:
    """What stands for anything must not let everything through."""
    assert is_shown("PCR0 …\nPCR1 …\n", "PCR0 ab\nPCR1 cd\n")
    assert not is_shown("PCR0 …\nPCR1 …\n", "PCR1 cd\nPCR0 ab\n")
    assert not is_shown('{"hello":"enclave"}\n', '{"hello":"nobody"}\n')
