"""The project's own verifier, through its Python face."""

import base64
import datetime as dt
import json
import sys
from typing import Any

from cloister import attest
from cloister.errors import AttestationError, PolicyError

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MILLISECOND = dt.timedelta(milliseconds=1)
LATEST = dt.datetime.max.replace(tzinfo=dt.UTC)


def verdict(case: dict[str, Any]) -> dict[str, Any]:
    """One case in, one verdict out."""
    try:
        policy = _policy(case)
    except PolicyError:
        return {"verdict": "refuse", "code": "PolicyError"}
    try:
        claims = attest.verify(
            base64.b64decode(case["document"]),
            policy,
            now=_moment(case["time_ms"]),
            nonce=_bytes(case["policy"]["nonce"]),
            user_data=_bytes(case["policy"]["user_data"]),
        )
    except AttestationError as problem:
        return {"verdict": "refuse", "code": type(problem).__name__}
    return {
        "verdict": "accept",
        "claims": {
            "module_id": claims.module_id,
            "timestamp_ms": (claims.timestamp - EPOCH) // MILLISECOND,
            "is_debug": claims.is_debug,
            "pcrs": {str(index): value.hex() for index, value in sorted(claims.pcrs.items())},
            "public_key": _text(claims.public_key),
            "user_data": _text(claims.user_data),
            "nonce": _text(claims.nonce),
        },
    }


def _policy(case: dict[str, Any]) -> attest.Policy:
    wanted = case["policy"]
    accepts_any = wanted["measurements"] == "any"
    return attest.Policy(
        measurements=()
        if accepts_any
        else [
            attest.Measurements({int(index): value for index, value in one.items()})
            for one in wanted["measurements"]
        ],
        trust_anchor=attest.TrustAnchor.dangerous_root_data(base64.b64decode(case["root"])),
        max_age=wanted["max_age_ms"] * MILLISECOND,
        leeway=wanted["leeway_ms"] * MILLISECOND,
        dangerous_accept_debug=wanted["accept_debug"],
        dangerous_any_measurement=accepts_any,
    )


def _moment(milliseconds: int) -> dt.datetime:
    try:
        return EPOCH + milliseconds * MILLISECOND
    except OverflowError:
        return LATEST


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


if __name__ == "__main__":
    for line in sys.stdin:
        case = json.loads(line)
        sys.stdout.write(json.dumps({"id": case["id"]} | verdict(case)) + "\n")
