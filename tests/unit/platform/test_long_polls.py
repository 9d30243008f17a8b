"""Long polls of hosts: many at a time, and what ends them. In this process, to see them wait."""

import asyncio
import base64
import contextlib
import datetime as dt
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
import uvicorn
from tests.support.platform_world import World

from cloister.platform.server.app import framework_app, make_app, make_parts
from cloister.platform.server.parts import Parts
from cloister.platform.server.serve import BoundedServer
from cloister.platform.tokens import OWNER, NewToken, Tokens

POLLS = 60  # more than the server has threads
PATIENCE_SECONDS = 20.0
Ask = Callable[[str, NewToken], Awaitable[httpx.Response]]


def made_parts(world: World) -> Parts:
    """A server's parts, with an enclave that was released to."""
    world.provision()
    return make_parts(world.database, world.platform, clock=world.clock)


@contextlib.asynccontextmanager
async def asking(parts: Parts) -> AsyncIterator[Ask]:
    """Asks the application, which looks for news meanwhile."""
    transport = httpx.ASGITransport(make_app(parts))
    async with (
        parts.versions.running(),
        httpx.AsyncClient(transport=transport, base_url="http://platform") as client,
    ):
        yield lambda path, token: client.get(path, headers=bearer(token))


def bearer(token: NewToken) -> dict[str, str]:
    return {"authorization": f"Bearer {token.secret}"}


def poll(world: World) -> str:
    """Where a host waits for what is newer than it has."""
    record = world.registry.enclave(world.uuid)
    assert record is not None
    return (
        f"/v1/bundle?enclave={world.uuid}&after={record.bundle_version}"
        f"&boot_key={world.boot.key.public.hex()}&wait=20"
    )


def relay(world: World, name: str, *, not_after: dt.datetime | None = None) -> NewToken:
    tokens = Tokens(world.database, world.clock)
    return tokens.create(name, scopes=[f"relay:{world.uuid}"], not_after=not_after)


async def until_waiting(parts: Parts, world: World, count: int) -> None:
    """Returns when so many polls wait for news of the enclave."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while parts.versions._waiting[world.uuid] != count:  # noqa: ASYNC110 - nobody else asks for it
            await asyncio.sleep(0.01)


def test_many_polls_hold_up_nobody_and_end_at_a_change(world: World) -> None:
    parts, host = made_parts(world), relay(world, "host")
    owner = Tokens(world.database, world.clock).create("owner", scopes=[OWNER])

    async def scenario() -> list[httpx.Response]:
        async with asking(parts) as ask:
            polls = [asyncio.ensure_future(ask(poll(world), host)) for _ in range(POLLS)]
            await until_waiting(parts, world, POLLS)
            answer = await asyncio.wait_for(ask("/v1/apps", owner), PATIENCE_SECONDS / 4)
            assert answer.status_code == 200
            assert not any(one.done() for one in polls)
            await asyncio.to_thread(world.keys.create, "new", scopes=["app"])
            return await asyncio.wait_for(asyncio.gather(*polls), PATIENCE_SECONDS)

    answers = asyncio.run(scenario())
    assert [one.status_code for one in answers] == [200] * POLLS
    assert all(base64.b64decode(one.json()["bundle"]) for one in answers)


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_a_token_that_ends_gets_nothing_at_the_end_of_its_poll(world: World, end: str) -> None:
    parts, lasting = made_parts(world), relay(world, "lasting")
    brief = relay(world, "brief", not_after=world.clock() + dt.timedelta(seconds=2))

    async def scenario() -> tuple[httpx.Response, ...]:
        async with asking(parts) as ask:
            polls = [asyncio.ensure_future(ask(poll(world), one)) for one in (brief, lasting)]
            await until_waiting(parts, world, 2)
            if end == "revoked":
                await asyncio.to_thread(parts.tokens.revoke, brief.record.id)
            else:
                world.clock.advance(seconds=2)
            assert not any(one.done() for one in polls)
            await asyncio.to_thread(world.keys.create, "new", scopes=["app"])
            return tuple(await asyncio.wait_for(asyncio.gather(*polls), PATIENCE_SECONDS))

    refused, given = asyncio.run(scenario())
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "Unauthenticated"
    assert given.status_code == 200
    assert given.json()["bundle"]


def test_a_stop_answers_what_waits(world: World) -> None:
    parts, host = made_parts(world), relay(world, "host")

    async def scenario() -> tuple[httpx.Response, float]:
        started = asyncio.Event()
        config = uvicorn.Config(framework_app(parts), port=0, log_config=None, http="h11")
        server = BoundedServer(config, parts.versions.close, started.set)
        serving = asyncio.ensure_future(server.serve())
        await started.wait()
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            waiting = asyncio.ensure_future(client.get(poll(world), headers=bearer(host)))
            await until_waiting(parts, world, 1)
            assert not waiting.done()
            begun = time.monotonic()
            server.should_exit = True
            answer = await waiting
            await serving
            return answer, time.monotonic() - begun

    answer, seconds = asyncio.run(scenario())
    assert answer.status_code == 204
    assert seconds < 8  # the poll asked for 20
