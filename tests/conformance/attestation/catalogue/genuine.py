"""Documents of the NSM itself, 2021 to 2026, under the root of AWS; one of them was altered."""

import json
import pathlib
from collections.abc import Iterator

import cbor2
from cryptography import x509
from tests.conformance.attestation.catalogue.case import HOUR, Case, Policy

VECTORS = pathlib.Path(__file__).parents[3] / "vectors" / "attestation"
ANY = Policy(measurements="any", accept_debug=True)


def cases() -> Iterator[Case]:
    for facts in json.loads((VECTORS / "manifest.json").read_text()):
        yield from _of((VECTORS / facts["file"]).read_bytes(), facts)


def _of(document: bytes, facts: dict[str, str]) -> Iterator[Case]:
    payload = cbor2.loads(cbor2.loads(document)[2])
    name, _, digest = facts["file"].removesuffix(".cbor").rpartition("_")
    name = f"genuine/{name.replace('_', '-')}-{digest}"
    at = payload["timestamp"]
    root = payload["cabundle"][0]

    def case(suffix: str, says: str, rule: str, **more: object) -> Case:
        values = {"document": document, "root": root, "time_ms": at, "policy": ANY} | more
        twin = name if suffix and facts["kind"] != "badsig" else None
        return Case(name=name + suffix, says=says, rule=rule, twin=twin, **values)

    if facts["kind"] == "badsig":
        yield case("", "altered after it was signed", "S1", code="BadSignature")
        return
    yield case("", f"genuine, {facts['kind']}", "S1")
    ends = [_end_ms(one) for one in (payload["certificate"], *payload["cabundle"])]
    late = min(ends) + HOUR
    lasting = Policy(measurements="any", accept_debug=True, max_age_ms=1000 * 24 * HOUR)
    yield case(
        "-expired",
        "an hour after its leaf ended",
        "C6",
        time_ms=late,
        policy=lasting,
        code="UntrustedChain",
    )
    if facts["kind"] == "debug":
        yield case(
            "-as-production",
            "a debug enclave, which was not asked for",
            "M1",
            policy=Policy(measurements="any"),
            code="DebugEnclave",
        )
        return
    measured = {str(index): payload["pcrs"][index].hex() for index in (0, 1, 2)}
    other = measured | {"2": "00" + measured["2"][2:]}
    yield case("-measured", "with its own registers", "M2", policy=Policy(measurements=[measured]))
    yield case(
        "-measured-otherwise",
        "one register is another",
        "M2",
        policy=Policy(measurements=[other]),
        code="MeasurementMismatch",
    )


def _end_ms(certificate: bytes) -> int:
    parsed = x509.load_der_x509_certificate(certificate)
    return round(parsed.not_valid_after_utc.timestamp() * 1000)
