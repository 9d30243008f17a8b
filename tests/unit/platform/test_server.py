"""What the server does when a part of it fails in a way that nobody foresaw."""

import asyncio
import dataclasses
import datetime as dt
import json
import logging
import uuid
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from starlette.types import Message, Receive, Scope, Send
from tests.support.platform_world import PCRS, World

from cloister.platform import engines
from cloister.platform.embedded import EmbeddedPlatform
from cloister.platform.engines import database_url
from cloister.platform.owner import Owner
from cloister.platform.registry import Registry
from cloister.platform.server.app import make_app, make_parts
from cloister.platform.server.bounds import BodyBound
from cloister.platform.server.parts import Parts
from cloister.platform.tables import Release
from cloister.platform.tokens import Tokens
from cloister.platform.trust_class import TrustClass


class Broken(Owner):
    """Fails with a text that nobody may see."""

    def apps(self) -> list[dict[str, Any]]:
        """Fails."""
        raise RuntimeError("marked text")


def ask(  # noqa: PLR0913 - parts of a request
    world: World,
    path: str,
    *,
    owner: Owner | None = None,
    method: str = "GET",
    body: object = None,
    token: str | None = None,
) -> httpx.Response:
    """One request with an owner's token, or another."""
    parts = make_parts(world.database, world.platform, clock=world.clock)
    if owner is not None:
        parts = dataclasses.replace(parts, owner=owner)
    secret = token or Tokens(world.database, world.clock).create("t", scopes=["owner"]).secret
    return asked(
        parts, path, method=method, body=body, headers={"authorization": f"Bearer {secret}"}
    )


def asked(
    parts: Parts,
    path: str,
    *,
    method: str = "GET",
    body: object = None,
    headers: dict[str, str],
) -> httpx.Response:
    """One request."""

    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(make_app(parts))
        async with httpx.AsyncClient(transport=transport, base_url="http://platform") as client:
            return await client.request(method, path, json=body, headers=headers)

    return asyncio.run(once())


def test_an_unforeseen_failure_is_said_without_its_text(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert ask(world, "/v1/apps").status_code == 200
    answer = ask(world, "/v1/apps", owner=Broken(world.database))
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "InternalError"
    assert "marked" not in answer.text
    assert "marked" not in caplog.text
    assert "test_server.py" in caplog.text
    assert '"status": 500' in caplog.text


def test_a_line_of_a_request_says_who_by_the_token_and_not_where_from(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cloister.platform.access")
    assert ask(world, "/v1/apps?marked=1").status_code == 200
    line = json.loads(caplog.records[-1].getMessage())
    assert line.keys() == {"at", "method", "call", "status", "ms", "token"}
    assert (line["method"], line["call"], line["status"]) == ("GET", "/v1/apps", 200)
    assert Tokens(world.database, world.clock).all()[-1].id == line["token"]
    # httpx says that it comes from 127.0.0.1.
    assert "127.0.0.1" not in caplog.text
    assert "marked" not in caplog.records[-1].getMessage()


def test_a_store_that_fails_is_503_and_asks_to_try_again(world: World) -> None:
    answer = ask(world, "/health")
    assert answer.status_code == 200
    with world.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE apps RENAME TO gone")
    answer = ask(world, "/v1/apps")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["code"] == "StoreError"
    assert "SELECT" not in answer.text
    assert "apps" not in answer.text


def test_where_the_database_is_is_in_the_log_alone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has no token is told no more than that it is down; whoever has one, either."""
    url = database_url("postgresql://marked@127.0.0.1:1/marked")
    gone = dataclasses.replace(world.database, engine=engines.postgresql(url))
    parts = make_parts(gone, EmbeddedPlatform(gone, development_root=world.root_dir))
    token = Tokens(world.database, world.clock).create("t", scopes=["owner"]).secret
    shown = {"authorization": f"Bearer {token}"}
    asks: list[tuple[str, dict[str, str]]] = [("/health", {}), ("/v1/apps", shown)]
    for path, headers in asks:
        caplog.clear()
        answer = asked(parts, path, headers=headers)
        assert answer.status_code == 503
        assert answer.json()["error"] == {
            "code": "StoreError",
            "message": "the platform's store cannot be used: its log says why",
            "hint": None,
        }
        assert "marked@127.0.0.1:1/marked" in caplog.text
    gone.engine.dispose()


def test_a_token_that_expired_is_refused_at_the_next_request(world: World) -> None:
    end = world.clock() + dt.timedelta(seconds=2)
    made = Tokens(world.database, world.clock).create("brief", scopes=["owner"], not_after=end)
    world.clock.advance(seconds=1.999)
    assert ask(world, "/v1/apps", token=made.secret).status_code == 200
    world.clock.advance(seconds=0.001)
    answer = ask(world, "/v1/apps", token=made.secret)
    assert answer.status_code == 401
    assert "expired or revoked" in answer.json()["error"]["message"]


def test_a_change_of_an_enclave_is_made_whole_or_not_at_all(world: World) -> None:
    path = f"/v1/enclaves/{world.uuid}"
    before = world.registry.enclave(world.uuid)
    assert before is not None
    wrong = ask(world, path, method="PATCH", body={"accepts_debug": True, "max_boots": 0})
    assert wrong.status_code == 400
    assert wrong.json()["error"]["code"] == "ConfigError"
    assert world.registry.enclave(world.uuid) == before
    right = ask(world, path, method="PATCH", body={"accepts_debug": True, "max_boots": 1})
    assert right.status_code == 200
    assert (right.json()["accepts_debug"], right.json()["max_boots"]) == (True, 1)
    # What is not named stays.
    half = ask(world, path, method="PATCH", body={"max_boots": None})
    assert (half.json()["accepts_debug"], half.json()["max_boots"]) == (True, None)


@pytest.mark.parametrize("name", ["", "a" * 64, "Ä"])
@pytest.mark.parametrize(
    ("path", "more", "expected"),
    [
        ("/v1/apps", {}, "is not a DNS label: expected 1 to 63"),
        ("/v1/apps/{app}/enclaves", {}, "is not a DNS label: expected 1 to 63"),
        ("/v1/tokens", {"scopes": ["owner"]}, "1 to 63 printable characters"),
        ("/v1/apps/{app}/api-keys", {"scopes": ["app"]}, "1 to 63 printable characters"),
    ],
)
def test_a_name_is_refused_in_the_same_words_as_without_a_server(
    world: World, path: str, more: dict[str, object], expected: str, name: str
) -> None:
    """Its length was judged by the form of the body, in other words and with another status."""
    if name == "Ä" and "printable" in expected:
        name = "a\n"
    answer = ask(
        world, path.format(app=world.store.app_uuid), method="POST", body={"name": name} | more
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "ConfigError"
    assert expected in answer.json()["error"]["message"]


END_OF_TIME = "9999-12-31T23:59:59"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/tokens", {"name": "t", "scopes": ["owner"]}, "expires"),
        ("/v1/apps/{app}/api-keys", {"name": "k", "scopes": ["app"]}, "expires"),
        (
            "/v1/enclaves/{enclave}/deployments",
            {"pcrs": {str(index): "ab" * 48 for index in (0, 1, 2)}},
            "until",
        ),
    ],
)
def test_a_time_after_the_end_of_the_calendar_is_refused(
    world: World, path: str, body: dict[str, object], field: str
) -> None:
    path = path.format(app=world.store.app_uuid, enclave=world.uuid)
    wrong = ask(world, path, method="POST", body=body | {field: f"{END_OF_TIME}-23:00"})
    assert wrong.status_code == 400
    assert wrong.json()["error"]["code"] == "InputError"
    assert f"`body.{field}`" in wrong.json()["error"]["message"]
    right = ask(world, path, method="POST", body=body | {field: f"{END_OF_TIME}+23:00"})
    assert right.status_code == 201
    assert right.json()[field] == "9999-12-31T00:59:59Z"


async def slowly(pieces: list[bytes], scope_headers: list[tuple[bytes, bytes]]) -> list[Message]:
    """What a body gets that never ends, from a bound of a tenth of a second."""
    sent: list[Message] = []
    left = list(pieces)

    async def receive() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(0), "more_body": True}
        await asyncio.sleep(60)
        raise AssertionError("nobody waits this long")

    async def send(message: Message) -> None:
        sent.append(message)

    async def reads_all(_: Scope, receive: Receive, send: Send) -> None:
        status = 200
        try:
            while (await receive()).get("more_body"):
                pass
        except Exception:  # noqa: BLE001 - as a framework does
            status = 400
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    scope = {"type": "http", "method": "POST", "headers": scope_headers}
    await BodyBound(reads_all, max_bytes=10, seconds=0.1)(scope, receive, send)
    return sent


def test_a_body_that_takes_long_is_refused() -> None:
    sent = asyncio.run(slowly([b"123"], []))
    assert [message.get("status") for message in sent] == [408, None]
    sent = asyncio.run(slowly([b"123456", b"123456"], []))
    assert [message.get("status") for message in sent] == [413, None]
    sent = asyncio.run(slowly([], [(b"content-length", b"11")]))
    assert [message.get("status") for message in sent] == [413, None]


def test_a_host_that_asks_without_end_fills_no_table(world: World) -> None:
    world.provision()

    def released() -> int:
        with world.database.reading() as session:
            return len(session.scalars(select(Release.id)).all())

    assert released() == 1
    for _ in range(20):
        assert world.platform.newer_bundle(world.uuid, 0) is not None
    assert released() == 1
    world.keys.create("new", scopes=["app"])
    for _ in range(20):
        assert world.platform.newer_bundle(world.uuid, 0) is not None
    assert released() == 2
    world.clock.advance(seconds=61)
    assert world.platform.newer_bundle(world.uuid, 0) is not None
    assert released() == 3


def test_a_host_is_told_what_to_run_and_nobody_else_is(world: World) -> None:
    registry = Registry(world.database, world.clock)
    tokens = Tokens(world.database, world.clock)
    first = world.deployment
    world.clock.advance(seconds=1)
    second = registry.add_deployment(world.uuid, PCRS | {0: b"\x11" * 48})
    relay = tokens.create("host", scopes=[f"relay:{world.uuid}"]).secret
    path = f"/v1/desired?enclave={world.uuid}"
    answer = ask(world, path, token=relay)
    assert answer.status_code == 200
    found = answer.json()["deployments"]
    assert [one["id"] for one in found] == [second, first]
    assert found[0]["pcrs"]["0"] == "11" * 48
    registry.end_deployment(second)
    assert [one["id"] for one in ask(world, path, token=relay).json()["deployments"]] == [first]
    # A time limit ends one as well.
    registry.end_deployment(first)
    until = world.clock() + dt.timedelta(minutes=1)
    registry.add_deployment(world.uuid, PCRS, until=until)
    assert len(ask(world, path, token=relay).json()["deployments"]) == 1
    world.clock.advance(minutes=2)
    assert ask(world, path, token=relay).json() == {"deployments": []}
    other = uuid.uuid4()
    registry.add_enclave(
        world.store.app_uuid, "other", uuid=other, trust_class=TrustClass.DEVELOPMENT
    )
    for scope in (f"relay:{other}", f"read:{world.store.app_uuid}"):
        token = tokens.create("t", scopes=[scope]).secret
        assert ask(world, path, token=token).status_code == 403
    assert ask(world, "/v1/desired", token=relay).status_code == 400
