"""Who waits for a newer bundle: one look into the store for all of them, twice a second.

A long poll of a host must not hold a thread for 25 seconds: there are few of those. The waiting is
here, on the event loop, and one task reads the versions of every enclave that is waited for.
"""

import asyncio
import collections
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Self
from uuid import UUID

from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from cloister.errors import StoreError
from cloister.platform.changes import LOOK_SECONDS
from cloister.platform.database import Database
from cloister.platform.tables import Enclave

log = logging.getLogger(__name__)


class Versions:
    """Versions of the enclaves that somebody waits for. For one event loop.

    Args:
        database: The open store.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: collections.Counter[UUID] = collections.Counter()
        self._known: dict[UUID, int] = {}
        self._looked = asyncio.Event()
        self._closed = False

    async def wait(self, enclave: UUID, after: int, timeout_s: float) -> bool:
        """Waits until the enclave's version is above ``after``, for ``timeout_s`` at most.

        Returns:
            Whether it is; ``False`` also when the server stops.
        """
        self._waiting[enclave] += 1
        try:
            async with asyncio.timeout(timeout_s):
                while not self._closed:
                    await self._looked.wait()
                    if self._known.get(enclave, -1) > after:
                        return True
        except TimeoutError:
            pass
        finally:
            self._waiting[enclave] -= 1
            if not self._waiting[enclave]:
                del self._waiting[enclave]
                self._known.pop(enclave, None)
        return False

    async def run(self) -> None:
        """Looks, until it is canceled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._waiting:
                try:
                    self._known = await run_in_threadpool(self._read, list(self._waiting))
                except StoreError as problem:
                    log.warning("versions cannot be read: %s", problem.message)
            self._wake()

    def close(self) -> None:
        """Ends every wait, from the event loop."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._looked = self._looked, asyncio.Event()
        waiting.set()

    def _read(self, enclaves: list[UUID]) -> dict[UUID, int]:
        found: dict[UUID, int] = {}
        with self._database.reading() as session:
            for start in range(0, len(enclaves), BATCH):
                rows = session.execute(
                    select(Enclave.uuid, Enclave.bundle_version).where(
                        Enclave.uuid.in_(enclaves[start : start + BATCH])
                    )
                )
                found |= {row.uuid: row.bundle_version for row in rows}
        return found

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Looks for as long as the context is open."""
        task = asyncio.create_task(self.run())
        try:
            yield self
        finally:
            self.close()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


BATCH = 500  # parameters of one statement
