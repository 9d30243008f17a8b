"""Tokens of the platform's own API, in the store."""

import datetime as dt
import pathlib
from collections.abc import Iterator

import pytest
from tests.support.platform_world import World, make_world

from cloister.errors import ConfigError
from cloister.platform.clock import to_ms
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
