"""``cloister encrypt``: what it reads, and what it prints."""

import base64
import json
import pathlib
import subprocess
import sys
import uuid

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.ciphertexts import App

from cloister.platform import local

APP = App()
KEY = base64.b64encode(APP.public).decode()


def encrypt(
    *words: str | bytes, stdin: bytes = b"", key: str = KEY
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "cloister.cli.main", "encrypt", "--public-key", key, *words],
        capture_output=True,
        input=stdin,
        check=False,
        timeout=60,
    )


def token(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().removesuffix("\n")


@pytest.mark.parametrize(
    ("words", "stdin", "clear"),
    [
        (["secret"], b"", b"secret"),
        (["line\n"], b"", b"line\n"),
        ([b"\xff\xfe"], b"", b"\xff\xfe"),
        ([""], b"", b""),
        (["-"], b"from a pipe\n", b"from a pipe"),
        ([], b"two\nlines\n\n", b"two\nlines\n"),
    ],
    ids=["argument", "line-feed", "not-utf-8", "empty", "dash", "standard-input"],
)
def test_a_value_is_taken_as_it_is(words: list[str | bytes], stdin: bytes, clear: bytes) -> None:
    found = APP.open(token(encrypt(*words, stdin=stdin)))
    assert (found.kind, found.text) == ("string", clear)


def test_a_number_is_kept_as_it_is_written() -> None:
    found = APP.open(token(encrypt("--type", "number", stdin=b" 1.10\n")))
    assert (found.kind, found.text) == ("number", b"1.10")
    found = APP.open(token(encrypt("--type", "boolean", "true")))
    assert (found.kind, found.text) == ("boolean", b"true")


@pytest.mark.parametrize("text", ["1_000", "0x10", "nan", "yes", "", "1 2"])
def test_what_is_no_number_is_refused(text: str) -> None:
    done = encrypt("--type", "number", text)
    assert done.returncode == 65
    assert done.stderr.startswith(b"error: ")
    assert not done.stdout


def test_an_unknown_type_is_a_wrong_command() -> None:
    done = encrypt("--type", "integer", "1")
    assert done.returncode == 2
    assert b"--type" in done.stderr


def test_a_document_keeps_its_shape() -> None:
    done = encrypt("--document", "--role", "allow-all", stdin=b'{"card": 4242424242424242}\n')
    document = json.loads(token(done))
    found = APP.open(document["card"])
    assert (found.kind, found.text) == ("number", b"4242424242424242")
    assert found.metadata is not None
    assert b"allow-all" in found.metadata


def test_one_json_object_is_printed_when_asked_for() -> None:
    printed = json.loads(token(encrypt("--json", "x")))
    assert APP.open(printed["ciphertext"]).text == b"x"


def test_the_key_may_be_in_a_file(tmp_path: pathlib.Path) -> None:
    for name, content in [("raw", APP.public), ("text", KEY.encode() + b"\n")]:
        path = tmp_path / name
        path.write_bytes(content)
        assert APP.open(token(encrypt("x", key=str(path)))).text == b"x"


def test_a_wrong_key_file_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "key"
    for content in [b"", b"no key", b"x" * 5000, bytes(33)]:
        path.write_bytes(content)
        done = encrypt("x", key=str(path))
        assert done.returncode == 65, content
        assert done.stderr.startswith(b"error: ")


def test_without_a_key_or_store_it_says_what_to_do(tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cloister.cli.main", "encrypt", "x"],
        capture_output=True,
        cwd=tmp_path,
        check=False,
        timeout=60,
    )
    assert done.returncode == 66
    assert b"hint: " in done.stderr


def test_without_a_key_that_of_the_local_store_is_taken(tmp_path: pathlib.Path) -> None:
    """The store is looked for beside enclave.toml, not below itself."""
    local.init_store(tmp_path, name="hello", uuid=uuid.uuid4())
    exported = json.loads(local.development_app_key_file(tmp_path))["private"]
    app = App()
    app.private = ec.derive_private_key(
        int.from_bytes(base64.b64decode(exported), "big"), ec.SECP256R1()
    )
    app.public = local.app_public_key(tmp_path)
    config = tmp_path / "enclave.toml"
    done = subprocess.run(
        [sys.executable, "-m", "cloister.cli.main", "encrypt", "--config", str(config), "secret"],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert app.open(token(done)).text == b"secret"
