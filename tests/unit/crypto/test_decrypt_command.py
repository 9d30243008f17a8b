"""``cloister decrypt`` and ``cloister encrypt --file``: what they read, write and refuse."""

import base64
import json
import os
import pathlib
import stat
import subprocess
import sys
import uuid

import pytest
from tests.support.ciphertexts import App

from cloister import crypto
from cloister.platform import local

APP = App()
PUBLIC = base64.b64encode(APP.public).decode()


@pytest.fixture
def key(tmp_path: pathlib.Path) -> pathlib.Path:
    return APP.write_key_file(tmp_path / "app-key.json")


def run(
    *words: str | bytes | pathlib.Path, stdin: bytes = b"", folder: pathlib.Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "cloister.cli.main", *words],
        capture_output=True,
        input=stdin,
        cwd=folder,
        check=False,
        timeout=60,
    )


def test_a_value_is_printed_and_nothing_else(key: pathlib.Path) -> None:
    token = crypto.encrypt("line\nnext é", APP.public)
    for words, stdin in [
        ([token], b""),
        (["-"], f"{token}\n".encode()),
        ([], f" {token} ".encode()),
    ]:
        done = run("decrypt", "--private-key", key, *words, stdin=stdin)
        assert (done.returncode, done.stdout) == (0, "line\nnext é\n".encode()), done.stderr
        assert done.stderr == b""


def test_a_number_is_printed_as_it_was_written(key: pathlib.Path) -> None:
    token = crypto.encrypt_literal(b"1.10", APP.public, kind="number")
    done = run("decrypt", "--private-key", key, "--json", token)
    assert json.loads(done.stdout) == {"type": "number", "clear": "1.10"}


def test_a_document_comes_back_to_the_byte(key: pathlib.Path) -> None:
    document = b'{"card": 4242424242424242,  "n": 1.10, "x": null}'
    sealed = crypto.encrypt_json(document, APP.public)
    done = run("decrypt", "--private-key", key, "--document", stdin=sealed + b"\n")
    assert done.stdout == document + b"\n"


def test_bytes_that_are_no_text_go_to_a_file(key: pathlib.Path, tmp_path: pathlib.Path) -> None:
    token, out = crypto.encrypt(b"\xff\x00", APP.public), tmp_path / "out"
    refused = run("decrypt", "--private-key", key, token)
    assert refused.returncode == 65
    assert b"--output" in refused.stderr
    done = run("decrypt", "--private-key", key, "--output", out, token)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == b"\xff\x00"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


@pytest.mark.parametrize("size", [0, 1, 1_000_000])
def test_a_file_goes_there_and_back(size: int, key: pathlib.Path, tmp_path: pathlib.Path) -> None:
    clear, sealed, back = (tmp_path / name for name in ("clear", "sealed", "back"))
    clear.write_bytes(b"\xfe" * size)
    done = run("encrypt", "--public-key", PUBLIC, "--file", clear, "-o", sealed)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert APP.open_file(sealed.read_bytes()) == clear.read_bytes()
    done = run("decrypt", "--private-key", key, "--file", sealed, "-o", back)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert back.read_bytes() == clear.read_bytes()
    assert stat.S_IMODE(back.stat().st_mode) == 0o600


def test_pipes_do_as_files_do(key: pathlib.Path) -> None:
    sealed = run("encrypt", "--public-key", PUBLIC, "--file", "-", stdin=b"\x00clear\n")
    assert sealed.returncode == 0, sealed.stderr
    done = run("decrypt", "--private-key", key, "--file", "-", stdin=sealed.stdout)
    assert done.stdout == b"\x00clear\n"


@pytest.mark.parametrize(
    "words",
    [["encrypt"], ["encrypt", "--document"], ["encrypt", "--file", "-"]],
    ids=["value", "document", "file"],
)
def test_a_pipe_that_would_block_is_not_at_its_end(words: list[str]) -> None:
    """A process before in the pipe may have made it non-blocking, and that stays."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(reading, "rb", 0) as source, os.fdopen(writing, "wb", 0) as peer:
        command = [sys.executable, "-m", "cloister.cli.main", *words, "--public-key", PUBLIC]
        for content in (b"", b"[1]"):
            peer.write(content)
            done = subprocess.run(
                command, stdin=source, capture_output=True, check=False, timeout=60
            )
            assert done.returncode == 65, done.stderr
            assert b"would block" in done.stderr
        peer.write(b"[1]")
        peer.close()
        done = subprocess.run(command, stdin=source, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_what_cannot_be_opened_leaves_what_was_there(
    key: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    sealed, out = tmp_path / "sealed", tmp_path / "out"
    sealed.write_bytes(App().seal_file(b"of another app"))
    out.write_bytes(b"before")
    before = sorted(path.name for path in tmp_path.iterdir())
    done = run("decrypt", "--private-key", key, "--file", sealed, "-o", out)
    assert done.returncode == 65
    assert b"any key" in done.stderr
    assert out.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    # The twin: one of this app takes the place of what was there.
    sealed.write_bytes(APP.seal_file(b"of this app"))
    assert run("decrypt", "--private-key", key, "--file", sealed, "-o", out).returncode == 0
    assert out.read_bytes() == b"of this app"


def test_a_longer_file_needs_a_higher_limit(key: pathlib.Path, tmp_path: pathlib.Path) -> None:
    sealed = tmp_path / "sealed"
    sealed.write_bytes(APP.seal_file(b"x" * 1000))
    words = ["decrypt", "--private-key", key, "--file", sealed, "--max-file"]
    assert run(*words, "1074").returncode == 65
    assert run(*words, "1075").stdout == b"x" * 1000


@pytest.mark.parametrize(
    "words",
    [
        ["encrypt", "--public-key", PUBLIC, "--file", "-", "value"],
        ["encrypt", "--public-key", PUBLIC, "--file", "-", "--document"],
        ["encrypt", "--public-key", PUBLIC, "--file", "-", "--role", "r"],
        ["encrypt", "--public-key", PUBLIC, "--file", "-", "--type", "string"],
        ["encrypt", "--public-key", PUBLIC, "--file", "-", "--json"],
        ["encrypt", "--public-key", PUBLIC, "--file", "-", "--output", "-", "--json"],
        ["encrypt", "--public-key", PUBLIC, "--document", "--type", "number"],
        ["encrypt", "--public-key", PUBLIC, "--document", "--type", "string", "[]"],
        ["encrypt", "--public-key", PUBLIC, "--output", "out", "value"],
        ["decrypt", "--file", "-", "value"],
        ["decrypt", "--file", "-", "--document"],
        ["decrypt", "--file", "-", "--json"],
        ["decrypt", "--file", "-", "--output", "-", "--json"],
        ["decrypt", "--output", "-", "--json", "value"],
        ["decrypt", "--max-file", "9", "value"],
    ],
    ids=lambda words: " ".join(word for word in words if word not in ("--public-key", PUBLIC)),
)
def test_what_does_not_go_together_is_a_wrong_command(
    words: list[str], tmp_path: pathlib.Path
) -> None:
    assert run(*words, folder=tmp_path).returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_where_a_file_went_is_printed_when_asked_for(
    key: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    sealed, back = tmp_path / "sealed", tmp_path / "back"
    words = ["--public-key", PUBLIC, "--file", "-", "-o", sealed, "--json"]
    done = run("encrypt", *words, stdin=b"clear")
    assert json.loads(done.stdout) == {"output": str(sealed)}, done.stderr
    done = run("decrypt", "--private-key", key, "--file", sealed, "-o", back, "--json")
    assert json.loads(done.stdout) == {"output": str(back)}, done.stderr
    assert back.read_bytes() == b"clear"
    token = crypto.encrypt("x", APP.public)
    done = run("decrypt", "--private-key", key, "-o", back, "--json", token)
    assert json.loads(done.stdout) == {"output": str(back)}, done.stderr
    assert back.read_bytes() == b"x"


def test_what_is_no_ciphertext_is_said(key: pathlib.Path) -> None:
    token = crypto.encrypt("x", APP.public)
    for text in ("plain", "ev:123", f"{token} and more", b"\xff", token.encode() + b"\xff"):
        done = run("decrypt", "--private-key", key, text)
        assert done.returncode == 65, done.stderr
        assert b"hint: " in done.stderr
        assert not done.stdout
    assert run("decrypt", "--private-key", key, token).stdout == b"x\n"


def test_a_document_that_is_not_utf_8_is_said(key: pathlib.Path) -> None:
    for text in (b"\xff", b'["\xff"]'):
        for words, stdin in (([text], b""), ([], text)):
            done = run("decrypt", "--private-key", key, "--document", *words, stdin=stdin)
            assert done.returncode == 65, done.stderr
            assert not done.stdout
    done = run("decrypt", "--private-key", key, "--document", '["é"]')
    assert done.stdout == '["é"]\n'.encode()


def test_a_file_that_is_not_there_is_said(key: pathlib.Path, tmp_path: pathlib.Path) -> None:
    gone = tmp_path / "gone"
    assert run("decrypt", "--private-key", key, "--file", gone).returncode == 66
    assert run("decrypt", "--private-key", gone, "x").returncode == 66
    assert run("encrypt", "--public-key", PUBLIC, "--file", gone).returncode == 66
    out = gone / "out"
    done = run("encrypt", "--public-key", PUBLIC, "--file", "-", "-o", out, stdin=b"x")
    assert done.returncode == 73


def test_t18_a_key_file_that_others_can_read_is_warned_of(key: pathlib.Path) -> None:
    token = crypto.encrypt("x", APP.public)
    assert run("decrypt", "--private-key", key, token).stderr == b""
    key.chmod(0o644)
    done = run("decrypt", "--private-key", key, token)
    assert done.stdout == b"x\n"
    assert b"chmod 600" in done.stderr
    assert base64.b64encode(APP.scalar) not in done.stderr


def test_several_keys_are_tried_and_without_one_those_of_the_local_store(
    key: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    other = App()
    second = other.write_key_file(tmp_path / "second.json")
    token = crypto.encrypt("x", other.public)
    assert run("decrypt", "--private-key", key, token).returncode == 65
    both = run("decrypt", "--private-key", key, "--private-key", second, token)
    assert both.stdout == b"x\n"

    folder = tmp_path / "project"
    folder.mkdir()
    missing = run("decrypt", token, folder=folder)
    assert missing.returncode == 66
    assert b"--private-key" in missing.stderr
    local.init_store(folder, name="hello", uuid=uuid.uuid4())
    sealed = run("encrypt", stdin=b"secret\n", folder=folder)
    assert run("decrypt", stdin=sealed.stdout, folder=folder).stdout == b"secret\n"
