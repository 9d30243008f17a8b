"""The application: calls of hosts, calls of owners, health, and a page that documents them."""

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from sqlalchemy import text
from starlette.types import ASGIApp

from cloister.platform.clock import Clock, system
from cloister.platform.database import Database
from cloister.platform.embedded import EmbeddedPlatform
from cloister.platform.owner import Owner
from cloister.platform.server import host_calls, models, owner_calls, page, refusals
from cloister.platform.server.bounds import MAX_BODY_BYTES, AccessLog, BodyBound
from cloister.platform.server.parts import Parts
from cloister.platform.server.versions import Versions
from cloister.platform.tokens import Tokens


def make_parts(database: Database, platform: EmbeddedPlatform, *, clock: Clock = system) -> Parts:
    """What answers from a store that is open."""
    return Parts(
        database=database,
        platform=platform,
        owner=Owner(database, clock),
        tokens=Tokens(database, clock),
        versions=Versions(database),
        clock=clock,
    )


def make_app(parts: Parts) -> ASGIApp:
    """The application with its bounds."""
    return AccessLog(BodyBound(framework_app(parts), max_bytes=MAX_BODY_BYTES), clock=parts.clock)


def framework_app(parts: Parts) -> FastAPI:
    """The application alone."""

    @contextlib.asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        async with parts.versions.running():
            yield

    app = FastAPI(
        title="Cloister platform",
        description="Apps, enclaves and their images, keys, variables; what hosts carry for them.",
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=running,
        responses={"4XX": {"model": models.Error}, "5XX": {"model": models.Error}},
    )
    app.state.parts = parts
    refusals.install(app)
    app.include_router(host_calls.router)
    app.include_router(owner_calls.router)
    app.add_api_route("/health", health, tags=["server"])
    app.add_api_route("/docs", documentation, include_in_schema=False, response_class=HTMLResponse)
    return app


def health(request: Request) -> JSONResponse:
    """Whether the store answers: 200, else 503."""
    parts: Parts = request.app.state.parts
    with parts.database.reading() as session:
        session.execute(text("SELECT 1"))
    return JSONResponse({"status": "ok"}, headers={"cache-control": "no-store"})


async def documentation(request: Request) -> HTMLResponse:
    """The API for people."""
    return HTMLResponse(
        page.render(request.app.openapi()),
        headers={"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"},
    )
