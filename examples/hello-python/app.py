"""A small real service: it checks card numbers that its clients send encrypted.

``POST /cards`` takes ``{"number": "ev:…", "expires": "ev:…"}``. Nothing here decrypts: the data
plane of the enclave has done so before a request arrives. The answer says whether such a card can
exist, and repeats no more of its number than the last four digits. No number is in an error or a
log either.
"""

import datetime as dt
import itertools
import json
import re
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


async def check(request: Request) -> Response:
    """``POST /cards``."""
    number, expires = read_card(await body(request))
    problems = []
    if not has_check_digit(number):
        problems.append("the check digit of the number is wrong")
    if expires < months(dt.datetime.now(dt.UTC).date()):
        problems.append("the card is expired")
    masked = "*" * (len(number) - SHOWN_DIGITS) + number[-SHOWN_DIGITS:]
    return JSONResponse(
        {
            "valid": not problems,
            "problems": problems,
            "brand": brand(number),
            "masked": masked,
        }
    )


async def health(_: Request) -> Response:
    """``GET /health``: `cloister init --healthcheck /health` has it asked."""
    return JSONResponse({"status": "ok"})


async def body(request: Request) -> Any:
    """The JSON document of a request.

    Raises:
        HTTPException: It is no JSON (400, 415), or too long (413).
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "expected the content-type application/json")
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > MAX_BODY_BYTES:
            raise HTTPException(413, f"expected {MAX_BODY_BYTES} bytes at most")
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not a JSON document") from None


def read_card(document: Any) -> tuple[str, int]:
    """The digits of the number, and the last month in which the card is good.

    Raises:
        HTTPException: A field is missing or is not what it should be; with the field's name.
    """
    if not isinstance(document, dict):
        raise HTTPException(400, "expected a JSON object")
    if unknown := document.keys() - {"number", "expires"}:
        raise HTTPException(400, f"expected `number` and `expires`, found {len(unknown)} more")
    number, expires = document.get("number"), document.get("expires")
    # A value encrypted as a number arrives as one; `True` is an int for Python, but no number.
    if isinstance(number, bool) or not isinstance(number, int | str):
        raise HTTPException(400, "`number` has to be a string of digits or a number")
    digits = re.sub(r"[ -]", "", str(number))
    if not re.fullmatch(r"[0-9]{12,19}", digits):
        raise HTTPException(400, "`number` has to have 12 to 19 digits")
    matched = re.fullmatch(EXPIRES, expires) if isinstance(expires, str) else None
    if matched is None:
        raise HTTPException(400, "`expires` has to be a string like 04/30")
    return digits, months(dt.date(2000 + int(matched[2]), int(matched[1]), 1))


def months(day: dt.date) -> int:
    """Months since year 0."""
    return day.year * 12 + day.month


def has_check_digit(digits: str) -> bool:
    """Whether the last digit is the one that follows from the others (ISO/IEC 7812-1, Annex B)."""
    doubled = (int(digit) * (1 + at % 2) for at, digit in enumerate(reversed(digits)))
    return sum(itertools.chain.from_iterable(divmod(value, 10) for value in doubled)) % 10 == 0


def brand(digits: str) -> str:
    """Who issued the card, by the first digits of its number."""
    return next((name for name, prefix in BRANDS.items() if re.match(prefix, digits)), "other")


async def refuse(_: Request, problem: Exception) -> Response:
    """Every error as JSON, also those of the router: 404, 405."""
    status, message, headers = 500, "something went wrong", None
    if isinstance(problem, HTTPException):
        status, message, headers = problem.status_code, problem.detail, problem.headers
    return JSONResponse({"error": message}, status, headers)


MAX_BODY_BYTES = 16 * 1024
SHOWN_DIGITS = 4
EXPIRES = r"(0[1-9]|1[0-2])/([0-9]{2})"
BRANDS = {
    "visa": "4",
    "mastercard": "5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720",
    "american express": "3[47]",
    "discover": "6011|64[4-9]|65",
}

service = Starlette(
    routes=[
        Route("/cards", check, methods=["POST"]),
        Route("/health", health, methods=["GET"]),
    ],
    exception_handlers={HTTPException: refuse, Exception: refuse},
)
