"""T-06: a key that is not the key lets nobody in, says nothing about the one that is, and ends.

How a revocation reaches a running enclave is in ``tests/integration/test_run.py``.
"""

import datetime as dt
import pathlib
import re
import secrets
import string
import time
from collections.abc import Iterator

import pytest
from tests.support.application import wait_until
from tests.support.exchanges import Answer
from tests.support.raw_client import RawClient
from tests.support.recording_process import RecordingProcess, recording

from cloister.dev import ApiKey, DataPlane

UUID = "0d5a2a8e-6a51-4f3b-bf0f-4d8c3f0a9e33"
OTHER = "11111111-6a51-4f3b-bf0f-4d8c3f0a9e33"
NO_KEY = b'{"message":"No api-key header present on request"}'
WRONG_KEY = b'{"message":"Invalid api key provided"}'
REVOKED_WITHIN_S = 5.0


@pytest.fixture
def process() -> Iterator[RecordingProcess]:
    with recording() as running:
        yield running


def fresh(name: str) -> str:
    return f"ck_{name}_{secrets.token_urlsafe(32)}"


def plane_with(process: RecordingProcess, *keys: ApiKey) -> DataPlane:
    return DataPlane(process.address, config={"uuid": UUID}, api_keys=list(keys))


def test_every_key_that_differs_in_one_character_is_wrong(process: RecordingProcess) -> None:
    key = fresh("right")
    with plane_with(process, ApiKey(value=key)) as plane, _client(plane) as client:
        for at in range(len(key)):
            other = secrets.choice([c for c in string.ascii_letters if c != key[at]])
            refused = _ask(client, key[:at] + other + key[at + 1 :])
            assert (refused.status, refused.body) == (401, WRONG_KEY), at
        assert not process.received
        assert _ask(client, key).status == 200
    assert len(process.received) == 1


def test_guesses_are_all_answered_alike(process: RecordingProcess) -> None:
    """Whether an id exists, or a secret belongs to another id, or has its length, shows nowhere."""
    keys = [fresh("one"), fresh("two")]
    secret_of = [key.split("_", 2)[2] for key in keys]
    guesses = [
        fresh("one"),
        fresh("nobody"),
        f"ck_one_{secret_of[1]}",
        keys[0][:-1],
        keys[0] + "A",
        keys[0].upper(),
        keys[0].replace("ck_", "CK_"),
        f"ck__{secret_of[0]}",
        "ck_one_",
        "ck_one_" + "A" * 43,
        "x" * 5_000,
        f"{keys[0]} {keys[1]}",
        f"Bearer {keys[0]}",
        "\u00e9" * 50,
    ]
    accepted = [ApiKey(value=key) for key in keys]
    with plane_with(process, *accepted) as plane, _client(plane) as client:
        answers = [_ask(client, guess) for guess in guesses]
        assert {(answer.status, answer.body) for answer in answers} == {(401, WRONG_KEY)}
        shapes = {tuple(name for name, _ in answer.headers) for answer in answers}
        assert len(shapes) == 1
        assert _ask(client, "").body == NO_KEY
        assert not process.received
        assert [_ask(client, key).status for key in keys] == [200, 200]


def test_many_guesses_on_one_connection_do_not_slow_down_or_let_in(
    process: RecordingProcess,
) -> None:
    key = fresh("right")
    with plane_with(process, ApiKey(value=key)) as plane, _client(plane) as client:
        for _ in range(2_000):
            assert _ask(client, fresh("right")).status == 401
        assert _ask(client, key).status == 200
    assert len(process.received) == 1


def test_a_key_of_another_enclave_is_403_and_one_without_a_scope_too(
    process: RecordingProcess,
) -> None:
    other, none, mine, app = (fresh(name) for name in ("other", "none", "mine", "app"))
    keys = (
        ApiKey(value=other, scopes=(f"enclave:{OTHER}",)),
        ApiKey(value=none, scopes=()),
        ApiKey(value=mine, scopes=(f"enclave:{OTHER}", f"enclave:{UUID}")),
        ApiKey(value=app, scopes=("app",)),
    )
    with plane_with(process, *keys) as plane, _client(plane) as client:
        assert [_ask(client, key).status for key in (other, none)] == [403, 403]
        assert not process.received
        assert [_ask(client, key).status for key in (mine, app)] == [200, 200]


def test_a_key_ends_when_it_was_said_to(process: RecordingProcess) -> None:
    now = dt.datetime.now(dt.UTC)
    ended, soon = fresh("ended"), fresh("soon")
    keys = (
        ApiKey(value=ended, not_after=now - dt.timedelta(seconds=1)),
        ApiKey(value=soon, not_after=now + dt.timedelta(seconds=4)),
    )
    with plane_with(process, *keys) as plane, _client(plane) as client:
        refused = _ask(client, ended)
        assert (refused.status, refused.body) == (401, WRONG_KEY)
        assert _ask(client, soon).status == 200
        # On the same connection, which was let in before.
        wait_until(lambda: _ask(client, soon).status == 401, seconds=8)
        assert dt.datetime.now(dt.UTC) >= now + dt.timedelta(seconds=4)


def test_a_revoked_key_is_refused_on_connections_that_it_had_opened(
    process: RecordingProcess,
) -> None:
    revoked, kept = fresh("revoked"), fresh("kept")
    with plane_with(process, ApiKey(value=revoked), ApiKey(value=kept)) as plane:
        with _client(plane) as client:
            assert _ask(client, revoked).status == 200
            plane.replace_api_keys([ApiKey(value=kept)])
            begun = time.monotonic()
            wait_until(lambda: _ask(client, revoked).status == 401, seconds=REVOKED_WITHIN_S)
            assert time.monotonic() - begun < REVOKED_WITHIN_S
            assert _ask(client, kept).status == 200
        with _client(plane) as client:
            assert _ask(client, revoked).body == WRONG_KEY


def test_secrets_are_compared_in_constant_time_by_construction() -> None:
    """Timing cannot be measured reliably here; that the comparison is subtle's can be read."""
    source = pathlib.Path(__file__).parents[2] / "rust/dataplane/src/live/api_keys.rs"
    production = source.read_text(encoding="utf-8").partition("#[cfg(test)]")[0]
    assert re.search(r"\.ct_eq\(", production)
    assert not re.search(r"(digest|hash|sha256)\w*(\.as_ref\(\))?\s*[!=]=", production)


def _client(plane: DataPlane) -> RawClient:
    return RawClient(plane.address, plane.ca_file)


def _ask(client: RawClient, key: str) -> Answer:
    return client.ask(f"GET / HTTP/1.1\r\nHost: a\r\napi-key: {key}\r\n\r\n".encode("latin-1"))
