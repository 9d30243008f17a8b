"""Encrypted files from Python, beside a second implementation."""

import io
import json
import os
import zlib
from collections.abc import Callable
from typing import IO

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.ciphertexts import VECTORS, App

from cloister import crypto
from cloister.errors import InputError, KeyFileError, MalformedCiphertext, OutputError

APP = App()
KEYS = crypto.Keyring([("P-256", APP.scalar)])
KNOWN = json.loads(VECTORS.read_text())


def sealed(clear: bytes) -> bytes:
    target = io.BytesIO()
    crypto.encrypt_file(io.BytesIO(clear), target, APP.public)
    return target.getvalue()


def opened(file: bytes, keys: crypto.Keyring = KEYS, **limits: int) -> bytes:
    target = io.BytesIO()
    crypto.decrypt_file(io.BytesIO(file), target, keys, **limits)
    return target.getvalue()


def with_checksum(covered: bytes) -> bytes:
    return covered + zlib.crc32(covered).to_bytes(4, "little")


@given(clear=st.binary(max_size=400))
def test_both_implementations_read_what_the_other_writes(clear: bytes) -> None:
    assert APP.open_file(sealed(clear)) == clear
    assert opened(APP.seal_file(clear)) == clear
    assert len(sealed(clear)) == len(clear) + 75


def test_a_file_of_many_pieces_comes_back() -> None:
    clear = bytes(range(256)) * 5000 + b"end"
    file = sealed(clear)
    assert APP.open_file(file) == clear
    assert opened(file) == clear


def test_streams_that_give_and_take_little_are_streams() -> None:
    class Narrow(io.RawIOBase):
        def __init__(self, content: bytes = b"") -> None:
            super().__init__()
            self.content = io.BytesIO(content)

        def read(self, size: int = -1, /) -> bytes:
            return self.content.read(min(size, 7))

        def write(self, data: bytes, /) -> int:  # type: ignore[override]
            return self.content.write(data[:11])

    target = Narrow()
    crypto.encrypt_file(Narrow(b"clear text" * 9), target, APP.public)
    clear = Narrow()
    crypto.decrypt_file(Narrow(target.content.getvalue()), clear, KEYS)
    assert clear.content.getvalue() == b"clear text" * 9


def test_a_source_that_has_nothing_yet_is_not_at_its_end() -> None:
    """A pipe that does not block: what has come so far is a whole file to who takes it for all."""

    def seal(source: IO[bytes]) -> None:
        crypto.encrypt_file(source, io.BytesIO(), APP.public)

    def open_(source: IO[bytes]) -> None:
        crypto.decrypt_file(source, io.BytesIO(), KEYS)

    for work, content in ((seal, b"a part"), (open_, FILE)):
        for buffering in (0, -1):
            reading, writing = os.pipe()
            os.set_blocking(reading, False)
            with os.fdopen(reading, "rb", buffering) as source:
                with os.fdopen(writing, "wb", 0) as peer:
                    peer.write(content)
                    with pytest.raises(InputError, match="would block"):
                        work(source)
                    peer.write(content)
                work(source)  # its peer has closed it: that is the end


def test_a_target_that_takes_nothing_is_not_written_for_ever() -> None:
    """A pipe that is full takes ``None``, and other streams say 0."""

    class Taking:
        def __init__(self, answer: object) -> None:
            self.taken, self.answer = b"", answer

        def write(self, data: bytes, /) -> object:
            self.taken += data
            return self.answer

    silent = Taking(None)
    crypto.encrypt_file(io.BytesIO(b"clear"), silent, APP.public)
    assert opened(silent.taken) == b"clear"
    with pytest.raises(OutputError, match="takes nothing"):
        crypto.encrypt_file(io.BytesIO(b"clear"), Taking(0), APP.public)

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(reading, "rb") as peer, os.fdopen(writing, "wb", 0) as target:
        crypto.encrypt_file(io.BytesIO(b"clear"), target, APP.public)
        assert opened(peer.read(5 + 75)) == b"clear"
        with pytest.raises(OutputError, match="takes nothing"):
            crypto.encrypt_file(io.BytesIO(bytes(1 << 20)), target, APP.public)


def test_the_known_file_on_secp256k1_opens() -> None:
    (vector,) = KNOWN["files"]
    keys = crypto.Keyring([("secp256k1", bytes.fromhex(KNOWN["app_private_hex"]))])
    assert opened(bytes.fromhex(vector["file_hex"]), keys) == bytes.fromhex(vector["plain_hex"])
    with pytest.raises(MalformedCiphertext, match="any key"):
        opened(bytes.fromhex(vector["file_hex"]))


def test_another_app_opens_nothing() -> None:
    file = sealed(b"clear")
    assert opened(file) == b"clear"
    with pytest.raises(MalformedCiphertext, match="any key"):
        opened(file, crypto.Keyring([("P-256", App().scalar)]))
    with pytest.raises(InvalidTag):
        App().open_file(file)


FILE = sealed(b"clear text")


@settings(max_examples=50)
@given(bit=st.integers(0, 8 * len(FILE) - 1))
def test_a_flipped_bit_is_refused_and_nothing_is_written(bit: int) -> None:
    """With the checksum as it is, and with one that is right again: then it is the tag's turn."""
    assert opened(FILE) == b"clear text"
    forged = bytearray(FILE)
    forged[bit // 8] ^= 1 << (bit % 8)
    for file in (bytes(forged), with_checksum(bytes(forged[:-4]))):
        if file == FILE:
            continue  # the flipped bit was the checksum's
        target = io.BytesIO()
        with pytest.raises(MalformedCiphertext):
            crypto.decrypt_file(io.BytesIO(file), target, KEYS)
        assert target.getvalue() == b""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda _: b"", "not an encrypted file"),
        (lambda _: b"plain text", "not an encrypted file"),
        (lambda file: file[:-1], "damaged"),
        (lambda file: file + b"x", "damaged"),
        (lambda file: with_checksum(file[:6] + b"\4" + file[7:-4]), "nonce twice"),
        (lambda file: with_checksum(file[:6] + b"\5" + file[7:-4]), "nonce twice"),
        (lambda file: with_checksum(file[:6] + b"\2" + file[7:-4]), "any key"),
        (lambda file: with_checksum(file[:54] + b"\1" + file[55:-4]), "debug"),
    ],
    ids=["empty", "text", "short", "long", "04", "05", "other-curve", "debug"],
)
def test_what_cannot_be_opened_says_why(change: Callable[[bytes], bytes], says: str) -> None:
    with pytest.raises(MalformedCiphertext, match=says):
        opened(change(FILE))
    assert opened(FILE) == b"clear text"


def test_a_file_over_the_limit_is_not_read_to_its_end() -> None:
    file = sealed(b"x" * 1000)
    assert opened(file, max_bytes=1075) == b"x" * 1000
    with pytest.raises(InputError, match="longer than 1074 bytes"):
        opened(file, max_bytes=1074)

    class Endless:
        taken = 0

        def read(self, size: int, /) -> bytes:
            self.taken += size
            return b"%" * size

    endless = Endless()
    with pytest.raises(InputError, match="longer than"):
        crypto.decrypt_file(endless, io.BytesIO(), KEYS, max_bytes=1 << 20)
    assert endless.taken <= (1 << 20) + 1


def test_a_source_that_fails_leaves_no_file() -> None:
    class Failing:
        reads = 0

        def read(self, size: int, /) -> bytes:
            self.reads += 1
            if self.reads > 1:
                raise OSError("gone")
            return b"x" * size

    target = io.BytesIO()
    with pytest.raises(OSError, match="gone"):
        crypto.encrypt_file(Failing(), target, APP.public)
    with pytest.raises(MalformedCiphertext):
        opened(target.getvalue())


def test_a_wrong_key_is_refused_before_anything_is_written() -> None:
    target = io.BytesIO()
    with pytest.raises(KeyFileError):
        crypto.encrypt_file(io.BytesIO(b"x"), target, bytes(33))
    assert target.getvalue() == b""
