"""T-05: a ciphertext that cannot be opened tells nothing, and has the effect that was promised.

Up to ``decrypt_buffer`` none: the user process hears nothing. Beyond, or in chunks: a request
without its end. What is opened and how is in ``rust/devplane/tests/engine/ciphertexts.rs``; here it
is the real process, with tokens that an attacker can make: of another app, cut, swapped, nested.
"""

import json
import re
import time
from collections.abc import Iterator

import pytest
from tests.support.application import wait_until
from tests.support.ciphertexts import App
from tests.support.dev_process import DevProcess, dev_process
from tests.support.exchanges import Answer, joined
from tests.support.recording_process import RecordingProcess, recording

from cloister import crypto

SECRET = "4242 4242 4242 4242"


@pytest.fixture(scope="module")
def process() -> Iterator[RecordingProcess]:
    with recording() as running:
        yield running


@pytest.fixture(scope="module")
def plane(
    process: RecordingProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DevProcess]:
    with dev_process(process.address, tmp_path_factory.mktemp("t05")) as running:
        yield running


@pytest.fixture(scope="module")
def token(plane: DevProcess) -> str:
    made = crypto.encrypt(SECRET, plane.app_public_key)
    assert isinstance(made, str)
    return made


def forged(token: str, plane: DevProcess) -> dict[str, str]:
    """Tokens that must not open, by what is wrong with them."""
    start, version, iv, key, data, end = token.split(":")
    other = crypto.encrypt(SECRET, App().public)
    again = crypto.encrypt(SECRET, plane.app_public_key).split(":")
    number = crypto.encrypt_literal(b"1234", plane.app_public_key, kind="number")
    flipped = "B" if data[0] == "A" else "A"
    return {
        "of-another-app": other,
        "first-bit": ":".join([start, version, iv, key, flipped + data[1:], end]),
        "tag-cut-by-three-bytes": ":".join([start, version, iv, key, data[:-4], end]),
        "nothing-but-a-tag": ":".join([start, version, iv, key, data[-22:], end]),
        "iv-of-another": ":".join([start, version, again[2], key, data, end]),
        "key-of-another": ":".join([start, version, iv, again[3], data, end]),
        "data-of-another": ":".join([start, version, iv, key, again[4], end]),
        "text-said-to-be-a-number": token.replace(f"ev:{version}:", f"ev:{version}:number:"),
        "number-said-to-be-a-text": number.replace(":number:", ":"),
        "number-said-to-be-a-truth": number.replace(":number:", ":boolean:"),
        "version-of-another-format": token.replace(f"ev:{version}:", "ev:Tk9D:"),
        "key-that-is-no-point": ":".join([start, version, iv, "A" + "/" * 43, data, end]),
    }


KINDS = (
    "of-another-app",
    "first-bit",
    "tag-cut-by-three-bytes",
    "nothing-but-a-tag",
    "iv-of-another",
    "key-of-another",
    "data-of-another",
    "text-said-to-be-a-number",
    "number-said-to-be-a-text",
    "number-said-to-be-a-truth",
    "version-of-another-format",
    "key-that-is-no-point",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_forged_token_is_a_422_of_one_shape_without_an_effect(
    kind: str, token: str, plane: DevProcess, process: RecordingProcess
) -> None:
    tokens = forged(token, plane)
    assert tuple(tokens) == KINDS
    before = len(process.received)
    body = json.dumps({"a": token, "b": tokens[kind]}).encode()
    refused = _post(plane, body)
    assert _shape(refused) == _shape(_post(plane, _body(tokens["first-bit"], token)))
    assert len(process.received) == before
    # The twin: the same request with a token that is right.
    assert _post(plane, _body(token, token)).status == 200
    assert process.received[-1].raw.endswith(_body(SECRET, SECRET))


def test_a_header_that_cannot_be_opened_is_refused_with_its_name_alone(
    token: str, plane: DevProcess, process: RecordingProcess
) -> None:
    before = len(process.received)
    with plane.client() as client:
        head = f"GET / HTTP/1.1\r\nHost: a\r\napi-key: {plane.key}\r\nX-Card: "
        bad = client.ask(f"{head}{forged(token, plane)['first-bit']}\r\n\r\n".encode())
        assert bad.status == 422
        assert json.loads(bad.body)["message"].endswith(", in header `x-card`")
        assert len(process.received) == before
        # The connection is in order, and the header opens where it is right.
        assert client.ask(f"{head}{token}\r\n\r\n".encode()).status == 200
    assert f"X-Card: {SECRET}\r\n".encode() in process.received[-1].raw


def test_a_token_is_opened_and_a_forged_one_refused_wherever_chunks_cut_it(
    token: str, plane: DevProcess, process: RecordingProcess
) -> None:
    bad = forged(token, plane)["first-bit"]
    for at in range(1, len(token) + 4, 1):
        body = f'{{"a":"{token}"}}'.encode()
        assert _post_chunked(plane, body[:at], body[at:]).status == 200
        assert joined(process.received[-1].raw).endswith(f'{{"a":"{SECRET}"}}<end>\r\n'.encode())
    for at in range(1, len(bad) + 4, 7):
        before = len(process.received)
        body = f'{{"a":"{bad}"}}'.encode()
        refused = _post_chunked(plane, body[:at], body[at:])
        assert _shape(refused) == (422, SHAPE)
        assert not any(request.is_whole for request in process.received[before:])


def test_a_streamed_body_that_fails_late_is_a_request_without_an_end(
    token: str, plane: DevProcess, process: RecordingProcess
) -> None:
    """What T-05 promises beyond ``decrypt_buffer``, and no more: the user process sees a start."""
    bad = forged(token, plane)["of-another-app"].encode()
    good = b'{"first":"' + token.encode() + b'","filler":"' + b"x" * (2 << 20)
    for last, status in ((token.encode(), 200), (bad, 422)):
        before = len(process.received)
        body = good + b'","last":"' + last + b'"}'
        assert _post(plane, body).status == status
        wait_until(lambda: len(process.received) > before)  # noqa: B023
        (seen,) = process.received[before:]
        assert seen.is_whole is (status == 200)
        assert SECRET.encode() in seen.raw
        assert (b"ev:" in seen.raw) is False


def test_what_was_opened_is_not_opened_again(
    token: str, plane: DevProcess, process: RecordingProcess
) -> None:
    """A clear text that is a token itself stays one: else a client could have others opened."""
    nested = crypto.encrypt(token, plane.app_public_key)
    assert _post(plane, _body(nested, "x")).status == 200
    assert process.received[-1].raw.endswith(_body(token, "x"))


def test_a_token_inside_other_text_is_opened_in_place(
    token: str, plane: DevProcess, process: RecordingProcess
) -> None:
    assert _post(plane, _body(f"card {token}, thanks", "x")).status == 200
    assert process.received[-1].raw.endswith(_body(f"card {SECRET}, thanks", "x"))


def test_a_clear_text_cannot_add_a_field(plane: DevProcess, process: RecordingProcess) -> None:
    hostile = '","admin":true,"x":"\r\n\x1b[2J'
    sealed = crypto.encrypt(hostile, plane.app_public_key)
    assert _post(plane, _body(sealed, "x")).status == 200
    raw = process.received[-1].raw
    assert json.loads(raw.partition(b"\r\n\r\n")[2]) == {"a": hostile, "b": "x"}
    # In a header it could add a line, so there it is refused.
    with plane.client() as client:
        head = f"GET / HTTP/1.1\r\nHost: a\r\napi-key: {plane.key}\r\nX-Card: {sealed}\r\n\r\n"
        assert client.ask(head.encode()).status == 422
    assert process.received[-1].raw == raw


def test_distinct_keys_are_bounded_and_cost_bounded_time(
    plane: DevProcess, process: RecordingProcess
) -> None:
    """Each distinct ephemeral key costs a multiplication on the curve: 1 000 in a request."""
    tokens = [crypto.encrypt(str(number), plane.app_public_key) for number in range(1_001)]
    assert len({token.split(":")[3] for token in tokens}) == 1_001
    assert _post(plane, json.dumps(tokens[:1_000]).encode()).status == 200
    before, busy = len(process.received), plane.processor_seconds()
    begun = time.monotonic()
    refused = _post(plane, json.dumps(tokens).encode())
    assert refused.status == 422
    assert "more than 1000 distinct ephemeral keys" in json.loads(refused.body)["message"]
    assert len(process.received) == before
    assert plane.processor_seconds() - busy < 2
    assert time.monotonic() - begun < 10
    # One key for many values costs once.
    many = crypto.encrypt([str(number) for number in range(5_000)], plane.app_public_key)
    assert len({token.split(":")[3] for token in many}) < 1_000
    assert _post(plane, json.dumps(many).encode()).status == 200


SHAPE = "the ciphertext cannot be opened with any key of this app, at byte N of the body"


def _shape(answer: Answer) -> tuple[int, str]:
    """Status and words of a refusal, with the offset taken out; nothing else may differ."""
    names = [name.lower() for name, _ in answer.headers]
    assert set(names) <= {b"content-type", b"content-length", b"x-evervault-ctx", b"connection"}
    assert SECRET.encode() not in answer.body
    message = json.loads(answer.body)["message"]
    assert list(json.loads(answer.body)) == ["message"]
    return answer.status, re.sub(r"byte \d+", "byte N", message)


def _body(first: str, second: str) -> bytes:
    return json.dumps({"a": first, "b": second}).encode()


def _post(plane: DevProcess, body: bytes) -> Answer:
    with plane.client() as client:
        client.try_send(_head(plane, f"Content-Length: {len(body)}") + body)
        return client.answer()


def _post_chunked(plane: DevProcess, *pieces: bytes) -> Answer:
    with plane.client() as client:
        client.send(_head(plane, "Transfer-Encoding: chunked"))
        for piece in pieces:
            client.try_send(b"%x\r\n" % len(piece) + piece + b"\r\n")
        client.try_send(b"0\r\n\r\n")
        return client.answer()


def _head(plane: DevProcess, line: str) -> bytes:
    lines = f"Host: a\r\napi-key: {plane.key}\r\nContent-Type: application/json\r\n{line}\r\n"
    return f"POST / HTTP/1.1\r\n{lines}\r\n".encode()
