"""The service of examples/hello-python by itself; as an enclave it is in tests/integration."""

import asyncio
import importlib.util
import json
import types
from typing import Any

import httpx
import pytest
from tests.support.guide import ROOT

JSON = {"content-type": "application/json"}


def load() -> types.ModuleType:
    """The example is a program, in no package."""
    path = ROOT / "examples" / "hello-python" / "app.py"
    spec = importlib.util.spec_from_file_location("hello_python_app", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


app = load()


def ask(method: str, path: str, **more: Any) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app.service)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            return await client.request(method, path, **more)

    return asyncio.run(asked())


@pytest.mark.parametrize(
    ("number", "brand", "masked"),
    [
        # Numbers that networks and processors publish for tests.
        (4242424242424242, "visa", "************4242"),
        ("4242-4242 4242 4242", "visa", "************4242"),
        ("5555555555554444", "mastercard", "************4444"),
        ("2223003122003222", "mastercard", "************3222"),
        ("378282246310005", "american express", "***********0005"),
        ("6011111111111117", "discover", "************1117"),
        ("3566002020360505", "other", "************0505"),
    ],
)
def test_a_card_is_good_and_masked(number: object, brand: str, masked: str) -> None:
    answer = ask("POST", "/cards", json={"number": number, "expires": "12/99"})
    assert (answer.status_code, answer.json()) == (
        200,
        {"valid": True, "problems": [], "brand": brand, "masked": masked},
    )


def test_one_wrong_digit_and_two_that_changed_places_are_noticed() -> None:
    good = "4539578763621486"
    assert app.has_check_digit(good)
    for at, digit in enumerate(good):
        for other in set("0123456789") - {digit}:
            assert not app.has_check_digit(good[:at] + other + good[at + 1 :])
    assert not app.has_check_digit(good[:2] + good[3] + good[2] + good[4:])


def test_a_card_is_good_until_its_month_ends() -> None:
    now = app.dt.datetime.now(app.dt.UTC)
    earlier = now.replace(year=now.year - 1)
    for day, problems in ((now, []), (earlier, ["the card is expired"])):
        card = {"number": "4242424242424242", "expires": day.strftime("%m/%y")}
        assert ask("POST", "/cards", json=card).json()["problems"] == problems


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"number": "4242424242424242"},
        {"number": "4242424242424242", "expires": "12/99", "name": "Ada"},
        {"number": True, "expires": "12/99"},
        {"number": 4242.0, "expires": "12/99"},
        {"number": "42424242424", "expires": "12/99"},
        {"number": "42424242424242424242", "expires": "12/99"},
        {"number": "²242424242424242", "expires": "12/99"},
        {"number": "4242424242424242\n", "expires": "12/99"},
        {"number": "4242424242424242", "expires": "13/99"},
        {"number": "4242424242424242", "expires": "1/99"},
        {"number": "4242424242424242", "expires": 1299},
    ],
)
def test_a_document_that_is_no_card_is_refused_without_repeating_it(document: object) -> None:
    answer = ask("POST", "/cards", json=document)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert "4242" not in answer.text


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 16_000, 400),
        (b"9" * 16_000, 400),
        (b"9" * 16_385, 413),
    ],
)
def test_a_body_that_is_no_json_is_refused(content: bytes, status: int) -> None:
    assert ask("POST", "/cards", content=content, headers=JSON).status_code == status
    good = json.dumps({"number": "4242424242424242", "expires": "12/99"}).encode()
    assert ask("POST", "/cards", content=good, headers=JSON).status_code == 200
    assert ask("POST", "/cards", content=good).status_code == 415


def test_paths_and_methods_are_answered_in_json() -> None:
    assert ask("GET", "/health").json() == {"status": "ok"}
    assert ask("GET", "/nowhere").json() == {"error": "Not Found"}
    refused = ask("GET", "/cards")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
