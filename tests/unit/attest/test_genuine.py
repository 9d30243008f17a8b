"""Genuine documents of 2021 to 2026, through the Python face of the verifier."""

import datetime as dt
import json
from typing import Any

import pytest
from tests.support.simulated import VECTORS

from cloister import attest

MANIFEST: list[dict[str, Any]] = json.loads((VECTORS / "manifest.json").read_text())
ANY = attest.Policy(dangerous_any_measurement=True)
ANY_DEBUG = attest.Policy(dangerous_any_measurement=True, dangerous_accept_debug=True)


def read(facts: dict[str, Any]) -> tuple[bytes, dt.datetime]:
    at = dt.datetime.fromtimestamp(facts["timestamp_ms"] / 1000, dt.UTC)
    return (VECTORS / facts["file"]).read_bytes(), at


@pytest.mark.parametrize("facts", MANIFEST, ids=lambda facts: facts["file"])
def test_each_document_is_what_it_is(facts: dict[str, Any]) -> None:
    document, at = read(facts)
    match facts["kind"]:
        case "badsig":
            with pytest.raises(attest.BadSignature):
                attest.verify(document, ANY_DEBUG, now=at)
            return
        case "debug":
            with pytest.raises(attest.DebugEnclave):
                attest.verify(document, ANY, now=at)
            claims = attest.verify(document, ANY_DEBUG, now=at)
        case _:
            claims = attest.verify(document, ANY, now=at)
    assert claims.module_id == facts["module_id"]
    assert claims.timestamp == at
    assert claims.is_debug == (facts["kind"] == "debug")
    nonzero = [index for index, value in claims.pcrs.items() if any(value)]
    assert nonzero == facts["nonzero_pcrs"]


def test_there_are_seventeen() -> None:
    kinds = [facts["kind"] for facts in MANIFEST]
    assert (len(kinds), kinds.count("badsig")) == (17, 1)


@pytest.mark.parametrize("facts", MANIFEST, ids=lambda facts: facts["file"])
def test_decoding_believes_nothing(facts: dict[str, Any]) -> None:
    """The one with the bad signature decodes as well as the others."""
    decoded = attest.decode(read(facts)[0])
    assert decoded.module_id == facts["module_id"]
    assert len(decoded.certificates) == 5
