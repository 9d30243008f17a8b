"""T-02: no response reaches another client, however the user process behaves and whoever waits.

Single faults are in the corpus of T-01 (``tests/vectors/http1/responses.toml``). Here many clients
share the pool at once, while the user process mixes every fault with good answers. What it sends
unasked while the next request is on the connection already cannot be told from the answer to that,
by nobody in HTTP/1: the user process is trusted not to forge answers, it only may not shift them.
"""

import concurrent.futures
import pathlib
import random
import re
import threading

import pytest
from tests.support.dev_process import DevProcess, dev_process
from tests.support.exchanges import Received
from tests.support.raw_client import Broken
from tests.support.recording_process import Reply, ok, recording

CLIENTS, REQUESTS, SEED = 16, 60, 20261127
FORGED = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"


def test_many_clients_and_a_user_process_that_lies_never_cross(tmp_path: pathlib.Path) -> None:
    chance = random.Random(SEED)  # noqa: S311 - which fault comes next is no secret
    turn = threading.Lock()

    def script(request: Received) -> Reply:
        mine = re.search(rb"/for/(\d+-\d+)", request.raw)
        body = mine[1] if mine else b"?"
        good = ok(body).pieces[0]
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body
        with turn:
            kind = chance.randrange(8)
        faults = {
            0: Reply(pieces=(good + FORGED,)),
            1: Reply(pieces=(chunked + b"\r\n0x0\r\n\r\n",)),
            2: Reply(pieces=(chunked + b"\r\n0\r\n\r\n" + FORGED,)),
            3: Reply(pieces=(good[:-2],), then="close"),
            4: Reply(pieces=(good,), then="close"),
            5: Reply(pieces=(b"HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\nforged",)),
        }
        return faults.get(kind, Reply(pieces=(good,)))

    with (
        recording(script) as process,
        dev_process(process.address, tmp_path) as plane,
        concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool,
    ):
        outcomes = list(pool.map(lambda number: _converse(plane, number), range(CLIENTS)))
    own, other, broken = (sum(part) for part in zip(*outcomes, strict=True))
    assert other == 0
    # Most are answered: otherwise that nobody got another's answer would mean little.
    assert own > CLIENTS * REQUESTS // 2, (own, broken)


def test_a_pool_of_good_answers_is_used_again(tmp_path: pathlib.Path) -> None:
    """The twin: without a fault few connections serve everybody."""
    with (
        recording(lambda request: ok(request.target.rpartition(b"/")[2])) as process,
        dev_process(process.address, tmp_path) as plane,
    ):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            outcomes = list(pool.map(lambda number: _converse(plane, number), range(4)))
        assert outcomes == [(REQUESTS, 0, 0)] * 4
        used = {request.connection for request in process.received}
        assert len(process.received) == 4 * REQUESTS
        assert len(used) <= 4


def _converse(plane: DevProcess, number: int) -> tuple[int, int, int]:
    """Answers of one's own (or with no body where it may have none), of others, and broken ones."""
    own = other = broken = 0
    client = plane.client()
    for turn in range(REQUESTS):
        mine = b"%d-%d" % (number, turn)
        request = b"GET /for/" + mine + b" HTTP/1.1\r\nHost: a\r\napi-key: "
        try:
            answer = client.ask(request + plane.key.encode() + b"\r\n\r\n")
        except (Broken, OSError):
            broken += 1
            client.close()
            client = plane.client()
            continue
        if answer.status >= 500:
            broken += 1
        elif answer.body == (b"" if answer.status == 204 else mine):
            own += 1
        else:
            other += 1
        if answer.header(b"connection") == b"close":
            client.close()
            client = plane.client()
    client.close()
    return own, other, broken


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_that_went_stale_is_replaced_for_what_can_be_sent_again(
    tmp_path: pathlib.Path, method: str
) -> None:
    """RFC 9112 §9.3.1: a request that may have had an effect is not sent twice."""
    calls = []

    def script(request: Received) -> Reply:
        calls.append(request.target)
        # The second request on a connection is read and not answered.
        is_second = request.target == b"/second" and len(calls) == 2
        return Reply(pieces=(b"",), then="close") if is_second else ok(b"fine")

    with (
        recording(script) as process,
        dev_process(process.address, tmp_path) as plane,
        plane.client() as client,
    ):
        who = f"Host: a\r\napi-key: {plane.key}\r\n"
        assert client.ask(f"GET /first HTTP/1.1\r\n{who}\r\n".encode()).status == 200
        body = "Content-Length: 2\r\n\r\nhi" if method == "POST" else "\r\n"
        answer = client.ask(f"{method} /second HTTP/1.1\r\n{who}{body}".encode())
        assert [request.target for request in process.received[1:]].count(b"/second") == (
            2 if method == "GET" else 1
        )
        assert answer.status == (200 if method == "GET" else 502)
