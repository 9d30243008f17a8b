"""Tokens of the platform's own API, in the store."""

import asyncio
import datetime as dt
import pathlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.support.platform_world import World, make_world

from cloister.errors import ConfigError
from cloister.platform.clock import to_ms
from cloister.platform.https import PlatformClient
from cloister.platform.owner import Owner
from cloister.platform.remote_owner import PAGE, RemoteOwner
from cloister.platform.server.app import make_app, make_parts
from cloister.platform.tables import TokenRow
from cloister.platform.tokens import MAX_TOKENS, OWNER, Tokens


@pytest.fixture
def world(tmp_path: pathlib.Path) -> Iterator[World]:
    made = make_world(tmp_path / "world")
    yield made
    made.database.close()


def fill(world: World, *, count: int, not_after: dt.datetime | None, revoked: bool = False) -> None:
    """So many tokens that nobody knows."""
    now_ms = to_ms(world.clock())
    with world.database.writing() as session:
        have = session.query(TokenRow).count()
        session.add_all(
            TokenRow(
                id=f"{have + number:016x}",
                name="filled",
                sha256=(have + number).to_bytes(32),
                scopes=[OWNER],
                not_after_ms=None if not_after is None else to_ms(not_after),
                created_ms=now_ms,
                revoked_ms=now_ms if revoked else None,
            )
            for number in range(count)
        )


class InProcess(PlatformClient):
    """Asks the server's application without a network, and counts."""

    def __init__(self, world: World, token: str) -> None:
        super().__init__("https://localhost", token)
        self._app = make_app(make_parts(world.database, world.platform, clock=world.clock))
        self._bearer = {"authorization": f"Bearer {token}"}
        self.lengths: list[int] = []

    def get(self, path: str, *, deadline_s: float = 15.0, **query: object) -> Any:
        """One request."""
        given = {name: str(value) for name, value in query.items() if value is not None}

        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
                return await client.get(path, params=given, headers=self._bearer)

        answer = asyncio.run(asyncio.wait_for(once(), deadline_s))
        answer.raise_for_status()
        self.lengths.append(len(answer.json()))
        return answer.json()


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_tokens_and_keys_come_in_pages_and_all_of_them_do(world: World, extra: int) -> None:
    """Those that ended stay, so their number has no end. Most of these are of one millisecond."""
    secret = Tokens(world.database, world.clock).create("owner", scopes=[OWNER]).secret
    fill(world, count=2 * PAGE + extra - 1, not_after=None, revoked=True)
    world.clock.advance(seconds=1)
    app = world.store.app_uuid
    for _ in range(3):
        world.keys.create("k", scopes=["app"])
    client, local = InProcess(world, secret), Owner(world.database, world.clock)
    assert RemoteOwner(client).tokens() == local.tokens()
    assert len(local.tokens()) == 2 * PAGE + extra
    assert client.lengths == {-1: [PAGE, PAGE - 1], 0: [PAGE, PAGE, 0], 1: [PAGE, PAGE, 1]}[extra]
    assert RemoteOwner(client).api_keys(app) == local.api_keys(app)
    assert len(client.get("/v1/tokens")) == 100
    path = f"/v1/apps/{app}/api-keys"
    (first,) = client.get(path, limit=1)
    assert [first, *client.get(path, after=first["id"])] == local.api_keys(app)
    assert len(local.api_keys(app)) == 3


@pytest.mark.parametrize(("after", "status"), [("0" * 15, 400), ("\0" * 16, 400), ("f" * 16, 404)])
def test_a_page_goes_on_behind_what_there_is(world: World, after: str, status: int) -> None:
    made = Tokens(world.database, world.clock).create("owner", scopes=[OWNER])
    client = InProcess(world, made.secret)
    for path in ("/v1/tokens", f"/v1/apps/{world.store.app_uuid}/api-keys"):
        with pytest.raises(httpx.HTTPStatusError) as caught:
            client.get(path, after=after)
        assert caught.value.response.status_code == status
    assert client.get("/v1/tokens", after=made.record.id) == []
    # A token of the platform is no key of an app.
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        client.get(f"/v1/apps/{world.store.app_uuid}/api-keys", after=made.record.id)


def test_tokens_that_work_are_bounded_and_ended_ones_are_not(world: World) -> None:
    """A run that is killed leaves a token to expire: those must not add up to a refusal."""
    tokens = Tokens(world.database, world.clock)
    fill(world, count=MAX_TOKENS, not_after=world.clock() - dt.timedelta(seconds=1))
    fill(world, count=MAX_TOKENS, not_after=None, revoked=True)
    assert tokens.find(tokens.create("last but one", scopes=[OWNER]).secret) is not None
    fill(world, count=MAX_TOKENS - 2, not_after=world.clock() + dt.timedelta(hours=1))
    assert tokens.find(tokens.create("last", scopes=[OWNER]).secret) is not None
    with pytest.raises(ConfigError, match="4096 tokens in use"):
        tokens.create("one more", scopes=[OWNER])
