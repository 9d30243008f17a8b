"""The internal API as an application calls it: documents, files, and what it refuses."""

import contextlib
import io
import json
import pathlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.ciphertexts import App

from cloister import crypto
from cloister.dev import DataPlane
from cloister.errors import InputError

MAX_FILE = 1 << 20


@pytest.fixture(scope="module")
def plane() -> Iterator[DataPlane]:
    config = {"limits": {"max_file": MAX_FILE}}
    with DataPlane("127.0.0.1:9", config=config, internal_api="127.0.0.1:0") as running:
        yield running


def ask(
    plane: DataPlane, path: str, data: Any = b"", method: str = "POST", **headers: str
) -> requests.Response:
    url = f"http://{plane.internal_api}{path}"
    return requests.request(method, url, data=data, headers=headers, timeout=30)


# Any JSON text: numbers of any length, white space, duplicate keys, escapes of every kind.
SPACE = st.sampled_from(["", " ", "\n", "\t \r\n"])
NUMBERS = st.from_regex(r"\A-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?\Z")
STRINGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).flatmap(
    lambda text: st.sampled_from([json.dumps(text), json.dumps(text, ensure_ascii=False)])
)
TEXTS = st.recursive(
    NUMBERS | STRINGS | st.sampled_from(["true", "false", "null"]),
    lambda inner: (
        st.builds(
            lambda items, s: f"[{s}" + f"{s},{s}".join(items) + f"{s}]",
            st.lists(inner, max_size=3),
            SPACE,
        )
        | st.builds(
            lambda items, s: "{" + ",".join(f"{s}{k}{s}:{s}{v}{s}" for k, v in items) + "}",
            st.lists(st.tuples(STRINGS, inner), max_size=3),
            SPACE,
        )
    ),
    max_leaves=10,
)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(text=TEXTS)
def test_any_json_comes_back_with_its_numbers_as_they_were(plane: DataPlane, text: str) -> None:
    sealed = ask(plane, "/encrypt", text.encode())
    assert sealed.status_code == 200, sealed.text
    opened = ask(plane, "/decrypt", sealed.content)
    assert opened.status_code == 200, opened.text
    exact: dict[str, Callable[[str], Any]] = {"parse_float": str, "parse_int": str}
    pairs = {"object_pairs_hook": list}
    assert json.loads(opened.content, **exact, **pairs) == json.loads(text, **exact, **pairs)
    assert b"ev:" not in opened.content or "ev:" in text


def test_python_and_the_enclave_follow_the_same_rules(plane: DataPlane) -> None:
    value = {"a": ["x", 1, 1.5, True, None, {"k": ""}], "b": {}, "": "é"}
    there = ask(plane, "/encrypt", json.dumps(value).encode()).json()
    here = crypto.encrypt(value, plane.app_public_key)

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shape(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [shape(inner) for inner in value]
        return value if value is None else value.split(":")[1:-4]

    assert shape(there) == shape(here)
    assert ask(plane, "/decrypt", json.dumps(here).encode()).json() == value


@pytest.mark.parametrize("levels", [1, 127, 128])
def test_both_ways_take_the_same_depth(plane: DataPlane, levels: int) -> None:
    text = b"[" * levels + b"1" + b"]" * levels
    sealed = ask(plane, "/encrypt", text)
    assert sealed.status_code == 200
    assert ask(plane, "/decrypt", sealed.content).content == text


@pytest.mark.parametrize("path", ["/encrypt", "/decrypt"])
@pytest.mark.parametrize("innermost", [b"[]", b"{}"], ids=["list", "object"])
def test_an_empty_container_is_a_level_too(plane: DataPlane, path: str, innermost: bytes) -> None:
    def nested(levels: int) -> bytes:
        return b"[" * (levels - 1) + innermost + b"]" * (levels - 1)

    answer = ask(plane, path, nested(128))
    assert (answer.status_code, answer.content) == (200, nested(128))
    refused = ask(plane, path, nested(129))
    assert refused.status_code == 400
    assert refused.json()["message"] == "line 1, column 129: nested deeper than 128 levels"
    # And so it is here.
    value = json.loads(nested(128))
    assert crypto.encrypt(value, plane.app_public_key) == value
    with pytest.raises(InputError, match="nested deeper than 128 levels"):
        crypto.encrypt([value], plane.app_public_key)


@pytest.mark.parametrize("path", ["/encrypt", "/decrypt"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "line 1, column 1: not JSON"),
        (b'{\n  "a": nope}', "line 2, column 8: not JSON"),
        (b'["\xff"]', "line 1, column 5: not JSON"),
        (b"[1] 2", "line 1, column 5: not JSON"),
        (b"[" * 129, "line 1, column 129: nested deeper than 128 levels"),
    ],
    ids=["empty", "second-line", "not-utf-8", "two", "deep"],
)
def test_what_is_not_json_is_said_by_line_and_column(
    plane: DataPlane, path: str, text: bytes, says: str
) -> None:
    answer = ask(plane, path, text)
    assert (answer.status_code, answer.json()["message"]) == (400, says)


def test_a_role_is_in_the_ciphertext_that_was_asked_for_with_it(tmp_path: pathlib.Path) -> None:
    """Beside a second reader, which has the private half of the plane's key."""
    app = App()
    keys = [app.write_key_file(tmp_path / "app-key.json")]
    with DataPlane("127.0.0.1:9", app_keys=keys, internal_api="127.0.0.1:0") as plane:
        role = {"x-evervault-data-role": "allow-all"}
        found = app.open(ask(plane, "/encrypt", b'"x"', **role).json())
        without = app.open(ask(plane, "/encrypt", b'"x"').json())
    assert found.text == without.text == b"x"
    # MessagePack: a text of two bytes, `dr`, and one of nine.
    assert found.metadata is not None
    assert b"\xa2dr\xa9allow-all" in found.metadata
    assert without.metadata is not None
    assert b"\xa2dr" not in without.metadata
    assert b"\xa2eo" in without.metadata


def test_a_role_that_is_none_is_refused(plane: DataPlane) -> None:
    for right in ("a", "a-9" * 6 + "zz"):
        answer = ask(plane, "/encrypt", b'"x"', **{"x-evervault-data-role": right})
        assert answer.status_code == 200, answer.text
    for wrong in ("Allow", "a" * 21, "a b"):
        answer = ask(plane, "/encrypt", b'"x"', **{"x-evervault-data-role": wrong})
        assert answer.status_code == 400


def test_a_document_that_would_grow_without_bound_is_refused(plane: DataPlane) -> None:
    """Eight MiB of ``1,`` would be half a GiB of ciphertexts."""
    answer = ask(plane, "/encrypt", b"[" + b"1," * ((4 << 20) - 2) + b"1]")
    assert answer.status_code == 413
    assert "67108864 bytes" in answer.json()["message"]
    many = ask(plane, "/encrypt", b"[" + b"1," * 10_000 + b"1]")
    assert many.status_code == 200
    opened = ask(plane, "/decrypt", many.content)
    assert opened.content == b"[" + b"1," * 10_000 + b"1]"


def test_who_sends_all_of_a_long_document_before_reading_sees_the_answer(plane: DataPlane) -> None:
    for path in ("/encrypt", "/decrypt"):
        answer = ask(plane, path, b'"' + b"x" * (9 << 20) + b'"')
        assert answer.status_code == 413
        assert answer.json()["message"] == "the body is longer than 8388608 bytes"


def test_a_file_goes_there_and_back(plane: DataPlane) -> None:
    for size in (0, 1, 15, 16, 17, 65_536, MAX_FILE - 75):
        clear = bytes(size % 251 for _ in range(1)) * size
        sealed = ask(plane, "/encrypt/file", clear)
        assert sealed.status_code == 200
        assert sealed.headers["content-type"] == "application/octet-stream"
        assert sealed.headers["content-length"] == str(size + 75)
        assert sealed.content[:7] == b"%EVENC\3"
        opened = ask(plane, "/decrypt/file", sealed.content)
        assert (opened.status_code, opened.content == clear) == (200, True)
        assert opened.headers["content-length"] == str(size)


def test_a_file_of_python_opens_here_and_the_reverse(plane: DataPlane) -> None:
    sealed = io.BytesIO()
    crypto.encrypt_file(io.BytesIO(b"clear"), sealed, plane.app_public_key)
    assert ask(plane, "/decrypt/file", sealed.getvalue()).content == b"clear"


def test_a_body_without_a_length_is_a_file_too(plane: DataPlane) -> None:
    pieces = [b"x" * 70_000, b"", b"y"]
    sealed = ask(plane, "/encrypt/file", iter(pieces))
    assert sealed.status_code == 200
    opened = ask(plane, "/decrypt/file", iter([sealed.content[:10], sealed.content[10:]]))
    assert opened.content == b"".join(pieces)


@pytest.mark.parametrize("path", ["/encrypt/file", "/decrypt/file"])
def test_a_file_over_the_limit_is_refused_with_and_without_a_length(
    plane: DataPlane, path: str
) -> None:
    answer = ask(plane, path, b"%" * (MAX_FILE + 1))
    assert answer.status_code == 413
    assert "longer than" in answer.json()["message"]
    with _begin(plane, path, f"Content-Length: {MAX_FILE + 1}") as stream:
        assert b" 413 " in stream.recv(100)  # without a byte of the body
    with _begin(plane, path, "Transfer-Encoding: chunked") as stream:
        stream.sendall(b"%x\r\n" % (MAX_FILE + 1))
        stream.sendall(b"%" * (MAX_FILE + 1) + b"\r\n0\r\n\r\n")
        assert b" 413 " in stream.recv(100)
    # The twin: within the limit it is encrypted, or read to its end and found to be no file.
    with _begin(plane, path, f"Content-Length: {MAX_FILE - 75}") as stream:
        stream.sendall(b"%" * (MAX_FILE - 75))
        status = b"200" if path == "/encrypt/file" else b"422"
        assert stream.recv(100).startswith(b"HTTP/1.1 " + status + b" ")


def test_nothing_of_a_file_that_was_changed_is_given(plane: DataPlane) -> None:
    clear = b"clear text " * 10_000
    sealed = ask(plane, "/encrypt/file", clear).content
    assert ask(plane, "/decrypt/file", sealed).content == clear
    for at in (0, 6, 7, 9, 42, 54, 55, 60_000, len(sealed) - 20, len(sealed) - 1):
        forged = bytearray(sealed)
        forged[at] ^= 4
        answer = ask(plane, "/decrypt/file", bytes(forged))
        assert answer.status_code == 422, at
        assert b"clear text" not in answer.content
    for other in (b"", b"plain", sealed[:-1], App().seal_file(clear)):
        assert ask(plane, "/decrypt/file", other).status_code == 422


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/encrypt/file", 405),
        ("PUT", "/decrypt/file", 405),
        ("GET", "/decrypt", 405),
        ("POST", "/health", 405),
        ("POST", "/encrypt/files", 404),
        ("POST", "/encrypt/", 404),
        ("GET", "/", 404),
    ],
)
def test_other_calls_are_refused(plane: DataPlane, method: str, path: str, status: int) -> None:
    answer = ask(plane, path, method=method)
    assert answer.status_code == status
    assert ("allow" in answer.headers) is (status == 405)


def test_other_hosts_are_refused_for_files_too(plane: DataPlane) -> None:
    assert ask(plane, "/encrypt/file", b"x", Host="evil.example").status_code == 403
    assert ask(plane, "/encrypt/file", b"x", Host="localhost").status_code == 200


def test_what_is_held_is_bounded_and_given_back() -> None:
    """Files that wait for their end take room; who comes then is told to try again."""
    config = {"limits": {"max_file": MAX_FILE, "held_bytes": 5 << 19}}
    # Two files that were announced leave less than a third one needs.
    with (
        DataPlane("127.0.0.1:9", config=config, internal_api="127.0.0.1:0") as plane,
        contextlib.ExitStack() as streams,
    ):
        length = f"Content-Length: {MAX_FILE - 75}"
        for _ in range(2):
            stream = streams.enter_context(_begin(plane, "/encrypt/file", length))
            stream.sendall(b"x" * (MAX_FILE - 200))
        _wait(lambda: ask(plane, "/encrypt/file", b"x" * 900_000).status_code == 503)
        answer = ask(plane, "/encrypt/file", b"x" * 900_000)
        assert answer.headers["retry-after"] == "1"
        streams.close()
        _wait(lambda: ask(plane, "/encrypt/file", b"x" * 900_000).status_code == 200)


def test_t05_what_is_decrypted_has_its_share_and_the_rest_goes_on() -> None:
    """A flood of new ephemeral keys is told to wait; health, a value and a file are not."""
    config = {"limits": {"decrypt_cpu": 2, "max_file": MAX_FILE}}
    with DataPlane("127.0.0.1:9", config=config, internal_api="127.0.0.1:0") as plane:

        def flood() -> bytes:
            tokens = [crypto.encrypt("x", plane.app_public_key) for _ in range(1_000)]
            return json.dumps(tokens).encode()

        floods = [flood() for _ in range(8)]
        statuses: list[int] = []
        threads = [
            threading.Thread(
                target=lambda body=body: statuses.append(ask(plane, "/decrypt", body).status_code)
            )
            for body in floods
        ]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        assert ask(plane, "/health", method="GET").status_code == 200
        assert ask(plane, "/encrypt", b'"x"').status_code == 200
        assert ask(plane, "/encrypt/file", b"x" * 100_000).status_code == 200
        assert time.monotonic() - begun < 2
        for thread in threads:
            thread.join()
        assert len(statuses) == len(floods), "a call was not answered"
        assert statuses.count(503) >= 4
        assert set(statuses) <= {200, 503}


def _begin(plane: DataPlane, path: str, framing: str) -> socket.socket:
    host, _, port = str(plane.internal_api).partition(":")
    stream = socket.create_connection((host, int(port)), timeout=10)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n"
    stream.sendall(head.encode())
    return stream


def _wait(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)
