"""What the server does when a part of it fails in a way that nobody foresaw."""

import asyncio
import dataclasses
import logging
from typing import Any

import httpx
import pytest
from tests.support.platform_world import World

from cloister.platform.owner import Owner
from cloister.platform.server.app import make_app, make_parts
from cloister.platform.tokens import Tokens


class Broken(Owner):
    """Fails with a text that nobody may see."""

    def apps(self) -> list[dict[str, Any]]:
        """Fails."""
        raise RuntimeError("marked text")


def ask(world: World, path: str, *, owner: Owner | None = None) -> httpx.Response:
    """One request with an owner's token."""
    parts = make_parts(world.database, world.platform, clock=world.clock)
    if owner is not None:
        parts = dataclasses.replace(parts, owner=owner)
    token = Tokens(world.database, world.clock).create("t", scopes=["owner"]).secret

    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(make_app(parts))
        async with httpx.AsyncClient(transport=transport, base_url="http://platform") as client:
            return await client.get(path, headers={"authorization": f"Bearer {token}"})

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
