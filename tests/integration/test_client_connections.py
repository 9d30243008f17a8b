"""Connections of the client under load: how many are attested, and what they carry."""

import asyncio
import contextlib
import datetime as dt
import hashlib
import os
import pathlib
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import requests
import websocket
from tests.support import simulated
from tests.support.application import Application, application, wait_until
from tests.support.attesting_clients import async_client
from tests.support.enclave_server import serving
from tests.support.streaming_application import PIECE, PIECES, streaming
from websockets.sync.server import ServerConnection, serve

from cloister import attest, client
from cloister.client.httpx_transport import AttestedTransport
from cloister.dev import DataPlane
from cloister.errors import MeasurementMismatch, PolicyError, UsageError

TASKS = 100
THREADS = 32


class Clock:
    """Counts the checks: each looks at the clock once, and once more when it has to ask."""

    def __init__(self) -> None:
        self.looks = 0
        self._lock = threading.Lock()

    def __call__(self) -> dt.datetime:
        """The time."""
        with self._lock:
            self.looks += 1
        return simulated.now()


@pytest.fixture
def app() -> Iterator[Application]:
    with application() as running:
        yield running


@pytest.fixture
def plane(app: Application) -> Iterator[DataPlane]:
    with DataPlane(app.address) as running:
        yield running


def policy(plane: DataPlane, pcr0: bytes = bytes(48)) -> attest.Policy:
    return attest.Policy(
        measurements={0: pcr0},
        trust_anchor=attest.TrustAnchor.dangerous_root(plane.nsm_root_file),
        dangerous_accept_debug=True,
    )


def enclave(plane: DataPlane, given: Any = None, **options: Any) -> client.Enclave:
    return client.Enclave(
        plane.url,
        policy(plane) if given is None else given,
        ca_file=plane.ca_file,
        api_key=plane.api_key,
        timeout=20.0,
        **options,
    )


def documents_fetched(plane: DataPlane, connections: int) -> int:
    """Each is fetched over a connection of its own."""
    return plane.stats()["connections"] - connections


def test_a_hundred_tasks_attest_each_connection_once(app: Application, plane: DataPlane) -> None:
    clock = Clock()

    async def run(made: client.Enclave) -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=TASKS, max_keepalive_connections=TASKS)
        async with async_client(made, limits=limits) as http:
            tasks = [asyncio.create_task(http.get("/slow")) for _ in range(TASKS)]
            await asyncio.to_thread(wait_until, lambda: len(app.seen) == TASKS)
            app.released.set()
            slow = await asyncio.gather(*tasks)
            before = clock.looks
            again = await asyncio.gather(*(http.get("/again") for _ in range(TASKS)))
            # Kept alive: nothing new to check.
            assert clock.looks == before
            return [*slow, *again]

    with enclave(plane, clock=clock, refresh_every=dt.timedelta(0)) as made:
        answers = asyncio.run(run(made))
    assert {answer.status_code for answer in answers} == {200}
    assert len(app.seen) == 2 * TASKS
    assert documents_fetched(plane, TASKS) == 1
    # One look for each connection, one for the document, and those that waited for it look again.
    assert TASKS + 1 <= clock.looks <= 2 * TASKS + 1


def test_with_a_document_known_each_connection_is_checked_exactly_once(
    app: Application, plane: DataPlane
) -> None:
    clock = Clock()

    async def run(made: client.Enclave) -> None:
        async with async_client(made, limits=httpx.Limits(max_connections=TASKS)) as http:
            tasks = [asyncio.create_task(http.get("/slow")) for _ in range(TASKS)]
            await asyncio.to_thread(wait_until, lambda: len(app.seen) == TASKS)
            app.released.set()
            await asyncio.gather(*tasks)

    with enclave(plane, clock=clock, refresh_every=dt.timedelta(0)) as made:
        made.attestor.refresh()
        before = clock.looks
        asyncio.run(run(made))
        assert clock.looks - before == TASKS
    assert documents_fetched(plane, TASKS) == 1


def test_http2_carries_a_hundred_tasks_over_few_connections(
    app: Application, plane: DataPlane
) -> None:
    clock = Clock()

    async def run(made: client.Enclave) -> list[httpx.Response]:
        async with async_client(made, http2=True) as http:
            await http.get("/first")
            return list(await asyncio.gather(*(http.get(f"/{n}") for n in range(TASKS))))

    with enclave(plane, clock=clock, refresh_every=dt.timedelta(0)) as made:
        answers = asyncio.run(run(made))
    assert {answer.http_version for answer in answers} == {"HTTP/2"}
    assert len(app.seen) == TASKS + 1
    # The document's and one: begin, offer and finish of its only check.
    assert (plane.stats()["connections"], clock.looks) == (2, 3)


def test_a_session_that_is_closed_has_no_connection_left(plane: DataPlane) -> None:
    """Not even one that a traceback still leads to: a drain would wait for it."""
    with client.Session(
        plane.url,
        policy(plane),
        ca_file=plane.ca_file,
        api_key=plane.api_key,
    ) as session:
        assert session.get(f"{plane.url}/").status_code == 200
        assert plane.stats()["active_connections"] == 1
    wait_until(lambda: plane.stats()["active_connections"] == 0, 3)


def test_thirty_two_threads_share_an_enclave(app: Application, plane: DataPlane) -> None:
    together = threading.Barrier(THREADS)
    failures: list[BaseException] = []

    with enclave(plane) as made:

        def work() -> None:
            try:
                together.wait(20)
                with httpx.Client(transport=AttestedTransport(made), timeout=30) as http:
                    for number in range(3):
                        assert http.get(f"{plane.url}/{number}").status_code == 200
            except BaseException as problem:  # noqa: BLE001 - reported below
                failures.append(problem)

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert failures == []
    assert len(app.seen) == 3 * THREADS
    assert documents_fetched(plane, THREADS) == 1


def test_one_failure_serves_all_who_waited_for_it(tmp_path: pathlib.Path) -> None:
    """The enclave answers nothing: all fail after one timeout, not one after the other."""
    module = simulated.nsm(now=simulated.now())
    with serving(module, tmp_path / "server") as server:
        server.drips = True
        given = client.Enclave(
            server.url, simulated.policy(module), ca_file=server.ca_file, timeout=2.0
        )
        problems: list[BaseException] = []
        together = threading.Barrier(8)
        leaf, url = server.leaf_der(), server.url

        def work() -> None:
            together.wait(10)
            try:
                given.attestor.check(leaf)
            except BaseException as problem:  # noqa: BLE001 - counted below
                problems.append(problem)

        begun = simulated.now()
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        took = simulated.now() - begun
        given.close()
    assert [str(problem) for problem in problems] == [f"{url} took longer than 2.0 s"] * 8
    assert len(set(map(id, problems))) == 8
    assert took < dt.timedelta(seconds=6)


def test_a_resumed_session_is_attested(plane: DataPlane, app: Application) -> None:
    accepted = [{"PCR0": "00" * 48}]
    clock = Clock()
    given = enclave(
        plane,
        policy(plane),
        pcr_provider=lambda: accepted,
        clock=clock,
        refresh_every=dt.timedelta(0),
    )
    with given, client.connect(given) as first:
        assert ask(first, plane) == 200
        assert not first.session_reused
        before = clock.looks
        with client.connect(given, resume=first) as second:
            assert second.session_reused
            assert clock.looks == before + 1
            assert ask(second, plane) == 200
            accepted = [{"PCR0": "01" * 48}]
            with pytest.raises(MeasurementMismatch):
                given.attestor.refresh()
            with pytest.raises(MeasurementMismatch):
                client.connect(given, resume=second)
    assert len(app.seen) == 2


def ask(sock: Any, plane: DataPlane) -> int:
    """The status of one request over a socket."""
    sock.sendall(f"GET / HTTP/1.1\r\nhost: x\r\napi-key: {plane.api_key}\r\n\r\n".encode())
    return int(sock.recv(65_536).split(b" ")[1])


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
def test_bodies_stream_both_ways(http2: bool) -> None:  # noqa: FBT001 - a case
    """The application has the beginning of a body before the client has made its end."""
    with streaming() as app, DataPlane(app.address) as plane, enclave(plane) as made:
        expected = f"{len(PIECE) * PIECES} {hashlib.sha256(PIECE * PIECES).hexdigest()}"

        def body() -> Iterator[bytes]:
            yield PIECE
            assert app.first_came.wait(20)
            for _ in range(PIECES - 1):
                yield PIECE

        with httpx.Client(transport=AttestedTransport(made, http2=http2), timeout=30) as http:
            assert http.post(f"{plane.url}/up", content=body()).text == expected
            with http.stream("GET", f"{plane.url}/down") as answer:
                pieces = answer.iter_raw()
                got = next(pieces)
                app.go_on.set()
                assert got + b"".join(pieces) == PIECE * PIECES


def test_bodies_stream_both_ways_in_tasks_and_in_requests() -> None:
    with streaming() as app, DataPlane(app.address) as plane, enclave(plane) as made:
        expected = f"{len(PIECE) * PIECES} {hashlib.sha256(PIECE * PIECES).hexdigest()}"

        async def body() -> AsyncIterator[bytes]:
            yield PIECE
            assert await asyncio.to_thread(app.first_came.wait, 20)
            for _ in range(PIECES - 1):
                yield PIECE

        async def run() -> None:
            async with async_client(made, http2=True) as http:
                answer = await http.post("/up", content=body())
                assert answer.text == expected
                async with http.stream("GET", "/down") as down:
                    pieces = down.aiter_raw()
                    got = await anext(pieces)
                    app.go_on.set()
                    assert got + b"".join([piece async for piece in pieces]) == PIECE * PIECES

        asyncio.run(run())
        app.first_came.clear()
        app.go_on.clear()
        with client.Session(
            plane.url, policy(plane), ca_file=plane.ca_file, api_key=plane.api_key
        ) as http:

            def made_late() -> Iterator[bytes]:
                yield PIECE
                assert app.first_came.wait(20)
                for _ in range(PIECES - 1):
                    yield PIECE

            assert http.post("/up", data=made_late()).text == expected
            with http.get("/down", stream=True) as answer:
                pieces = answer.iter_content(4096)
                got = next(pieces)
                app.go_on.set()
                assert got + b"".join(pieces) == PIECE * PIECES


@contextlib.contextmanager
def echoing() -> Iterator[str]:
    """A WebSocket server that says back what it hears."""

    def converse(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with serve(converse, "127.0.0.1", 0, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_websocket_runs_over_the_socket() -> None:
    """`websocket-client` takes a socket; it is handed one that was attested, or none."""
    with echoing() as address, DataPlane(address) as plane:
        wrong = enclave(plane, policy(plane, b"\x01" * 48))
        with wrong, pytest.raises(MeasurementMismatch):
            client.connect(wrong)
        assert plane.stats()["websockets"] == 0
        with enclave(plane) as made:
            talk = websocket.create_connection(
                plane.url.replace("https", "wss"),
                socket=client.connect(made),
                header={"api-key": plane.api_key},
            )
            for message in ("hello", "x" * 300_000):
                talk.send(message)
                assert talk.recv() == message
            talk.close()
        assert plane.stats()["websockets"] == 1


def test_a_forked_child_asks_for_itself(tmp_path: pathlib.Path) -> None:
    """Another thread is in the middle of a fetch at the fork; its lock is not the child's."""
    module = simulated.nsm(now=simulated.now())
    with serving(module, tmp_path / "server") as server:
        given = client.Enclave(
            server.url, simulated.policy(module), ca_file=server.ca_file, timeout=8.0
        )
        held, calls = threading.Event(), iter([True])

        def documents() -> bytes | None:
            if next(calls, False):
                held.wait(20)
            return None

        server.answer_for_documents = documents
        waiting = threading.Thread(target=_ignore, args=(given.attestor.refresh,))
        waiting.start()
        wait_until(lambda: server.fetches == 1)
        with warnings.catch_warnings():
            # Python 3.12 and later warn of forks beside threads, which is what this is about.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:  # pragma: no cover - counted in the child
            status = 1
            try:
                with client.connect(given):
                    status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert (waiting.is_alive(), server.fetches) == (True, 2)
        held.set()
        waiting.join(20)
        given.close()


def _ignore(call: Any) -> None:
    with contextlib.suppress(Exception):
        call()


def test_a_redirect_is_followed_to_enclaves_alone(tmp_path: pathlib.Path) -> None:
    module = simulated.nsm(now=simulated.now())
    with serving(module, tmp_path / "one") as one, serving(module, tmp_path / "two") as two:
        one.redirect_to = f"{two.url}/moved"
        first, second = (
            client.Enclave(
                server.url,
                simulated.policy(module, pcr0=pcr0),
                ca_file=server.ca_file,
                api_key=key,
            )
            for server, pcr0, key in (
                (one, simulated.PCR0, "of one"),
                (two, simulated.PCR0, "of two"),
            )
        )
        unlike = client.Enclave(
            two.url, simulated.policy(module, pcr0=b"\x01" * 48), ca_file=two.ca_file
        )
        with httpx.Client(transport=AttestedTransport(first), follow_redirects=True) as http:
            with pytest.raises(PolicyError, match="not an enclave of this transport"):
                http.get(f"{one.url}/redirect")
            with pytest.raises(PolicyError):
                http.get(one.url.replace("https", "http"))
        assert two.connections == 0
        with (
            httpx.Client(transport=AttestedTransport(first, unlike), follow_redirects=True) as http,
            pytest.raises(MeasurementMismatch),
        ):
            http.get(f"{one.url}/redirect")
        assert (two.requests, two.request_bytes) == ([], 0)
        with httpx.Client(
            transport=AttestedTransport(first, second), follow_redirects=True
        ) as http:
            assert http.get(f"{one.url}/redirect").url == f"{two.url}/moved"
        assert [(path, headers["api-key"]) for path, headers in two.requests] == [
            ("/moved", "of two")
        ]
        with pytest.raises(UsageError):
            AttestedTransport()
        with pytest.raises(UsageError):
            AttestedTransport(first, first)


def test_the_environment_does_not_lead_around_the_transport(
    plane: DataPlane, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`httpx` gives a client of its own transports for proxies of the environment, but not here."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "localhost")
    with (
        enclave(plane, policy(plane, b"\x01" * 48)) as wrong,
        httpx.Client(transport=AttestedTransport(wrong)) as http,
        pytest.raises(MeasurementMismatch),
    ):
        http.get(f"{plane.url}/secret")
    with enclave(plane) as made, httpx.Client(transport=AttestedTransport(made)) as http:
        http.get(f"{plane.url}/fine")
    monkeypatch.delenv("NO_PROXY")
    with enclave(plane) as made:
        assert made.proxy() == "http://127.0.0.1:1"
        with (
            httpx.Client(transport=AttestedTransport(made)) as http,
            pytest.raises(httpx.ConnectError),
        ):
            http.get(f"{plane.url}/unreachable")
    assert [seen.path for seen in app.seen] == ["/fine"]
    assert requests.utils.get_environ_proxies(plane.url)
