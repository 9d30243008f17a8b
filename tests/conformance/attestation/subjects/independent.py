"""A verifier that shares no line with the project's: cbor2 for CBOR, cryptography for the rest.

It is written from ``docs/spec/attestation.md`` alone, to show that the contract is not tied to one
implementation, and as a second opinion about every case. Where the two libraries read more than the
format has, it is laxer; ``deviations/independent.json`` beside this folder lists each such case.
"""

import base64
import datetime as dt
import io
import json
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import cbor2
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

FIELDS = {
    "module_id",
    "digest",
    "timestamp",
    "pcrs",
    "certificate",
    "cabundle",
    "public_key",
    "user_data",
    "nonce",
}
ES384 = "1.2.840.10045.4.3.3"
UNDERSTOOD = {x509.ExtensionOID.BASIC_CONSTRAINTS, x509.ExtensionOID.KEY_USAGE}
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Refused(Exception):
    """Why: a code of the contract."""


def require(condition: object, code: str) -> None:
    if not condition:
        raise Refused(code)


def malformed(condition: object) -> None:
    require(condition, "MalformedDocument")


def verify(case: dict[str, Any]) -> dict[str, Any]:
    """The claims.

    Raises:
        Refused: The document, or the policy.
    """
    policy = case["policy"]
    sets = check_policy(policy)
    protected, payload_bytes, signature = envelope(base64.b64decode(case["document"]))
    payload = read_payload(payload_bytes)
    leaf = certificate(payload["certificate"])
    bundle = [certificate(one) for one in payload["cabundle"]]
    root = certificate(base64.b64decode(case["root"]))
    leaf_key = check_chain(root, bundle, leaf, case["time_ms"], policy["leeway_ms"])
    check_signature(leaf_key, protected, payload_bytes, signature)
    check_wishes(payload, policy, sets, case["time_ms"])
    return {
        "module_id": payload["module_id"],
        "timestamp_ms": payload["timestamp"],
        "is_debug": not any(payload["pcrs"][0]),
        "pcrs": {str(index): value.hex() for index, value in sorted(payload["pcrs"].items())},
        "public_key": text(payload["public_key"]),
        "user_data": text(payload["user_data"]),
        "nonce": text(payload["nonce"]),
    }


def check_policy(policy: dict[str, Any]) -> list[dict[int, bytes]] | None:
    """The accepted sets; ``None`` for any."""
    good = policy["max_age_ms"] > 0 and 0 <= policy["leeway_ms"] <= 3_600_000
    require(good, "PolicyError")
    if policy["measurements"] == "any":
        return None
    require(policy["measurements"], "PolicyError")
    sets = []
    for given in policy["measurements"]:
        try:
            one = {int(index): bytes.fromhex(value) for index, value in given.items()}
        except ValueError:
            raise Refused("PolicyError") from None
        require(not one.keys().isdisjoint({0, 1, 2, 8}), "PolicyError")
        require(all(0 <= index < 32 for index in one), "PolicyError")
        require(all(len(value) == 48 for value in one.values()), "PolicyError")
        sets.append(one)
    return sets


def load(data: bytes) -> Any:
    """One item of CBOR and nothing behind it."""
    stream = io.BytesIO(data)
    try:
        value = cbor2.CBORDecoder(stream).decode()
    except Exception:  # noqa: BLE001 - the library raises whatever its tags raise
        raise Refused("MalformedDocument") from None
    malformed(stream.tell() == len(data))
    return value


def envelope(document: bytes) -> tuple[bytes, bytes, bytes]:
    malformed(len(document) <= 16_384)
    whole = load(document)
    if isinstance(whole, cbor2.CBORTag):
        malformed(whole.tag == 18)
        whole = whole.value
    malformed(isinstance(whole, list | tuple) and len(whole) == 4)
    protected, unprotected, payload, signature = whole
    malformed(all(isinstance(one, bytes) for one in (protected, payload, signature)))
    malformed(isinstance(unprotected, Mapping) and not unprotected)
    malformed(protected == b"\xa1\x01\x38\x22")
    malformed(len(signature) == 96)
    return protected, payload, signature


def read_payload(data: bytes) -> dict[str, Any]:
    payload = load(data)
    malformed(isinstance(payload, dict) and set(payload) == FIELDS)
    # The library keeps the last of two values: what is written again is shorter than what was read.
    malformed(no_key_twice(data, payload))
    for field in ("public_key", "user_data", "nonce"):
        value = payload[field]
        malformed(value is None or (isinstance(value, bytes) and len(value) <= 1024))
    identity = payload["module_id"]
    malformed(isinstance(identity, str) and 1 <= len(identity.encode(errors="replace")) <= 256)
    malformed(payload["digest"] == "SHA384")
    timestamp = payload["timestamp"]
    malformed(type(timestamp) is int and 0 < timestamp < 2**64)
    pcrs = payload["pcrs"]
    malformed(isinstance(pcrs, dict) and 0 in pcrs and len(pcrs) <= 32)
    malformed(all(type(index) is int and 0 <= index < 32 for index in pcrs))
    malformed(all(isinstance(one, bytes) and len(one) in (32, 48, 64) for one in pcrs.values()))
    bundle = payload["cabundle"]
    malformed(isinstance(bundle, list | tuple) and 1 <= len(bundle) <= 8)
    for one in (payload["certificate"], *bundle):
        malformed(isinstance(one, bytes) and 1 <= len(one) <= 1024)
    return payload


def no_key_twice(data: bytes, payload: dict[str, Any]) -> bool:
    """True when all pairs of the two maps are accounted for by the length."""
    written = len(cbor2.dumps(payload))
    # An indefinite map or array is a byte longer than the definite one of fewer than 24 entries.
    return len(data) - written in range(4)


def certificate(der: bytes) -> x509.Certificate:
    with warnings.catch_warnings():
        # A serial number of 21 bytes, which genuine certificates have.
        warnings.simplefilter("ignore")
        try:
            parsed = x509.load_der_x509_certificate(der)
            malformed(parsed.version is x509.Version.v3)
            malformed(len(list(parsed.extensions)) in range(1, 17))
            malformed(parsed.not_valid_before_utc <= parsed.not_valid_after_utc)
            malformed(parsed.issuer.rdns)
            # The length of what the INTEGER holds, its sign included.
            malformed(parsed.serial_number.bit_length() // 8 + 1 <= 32)
        except (
            ValueError,
            x509.DuplicateExtension,
            x509.UnsupportedGeneralNameType,
            x509.InvalidVersion,
        ):
            raise Refused("MalformedDocument") from None
    return parsed


def check_chain(
    root: x509.Certificate,
    bundle: list[x509.Certificate],
    leaf: x509.Certificate,
    now_ms: int,
    leeway_ms: int,
) -> ec.EllipticCurvePublicKey:
    """The key of the leaf."""
    check_time(root, now_ms, leeway_ms)
    path = bundle[1:] if bundle[0] == root else bundle
    seen = [root]
    budget = constraints(root).path_length
    above = root
    for one in path:
        untrusted(one not in seen)
        seen.append(one)
        check_issued(one, above, now_ms, leeway_ms)
        known = constraints(one)
        untrusted(known.ca)
        untrusted(usage(one, lambda bits: bits.key_cert_sign))
        if budget is not None:
            untrusted(budget > 0)
            budget -= 1
        if known.path_length is not None:
            budget = known.path_length if budget is None else min(budget, known.path_length)
        above = one
    check_issued(leaf, above, now_ms, leeway_ms)
    untrusted(not constraints(leaf).ca)
    untrusted(usage(leaf, lambda bits: bits.digital_signature))
    return key_of(leaf)


def untrusted(condition: object) -> None:
    require(condition, "UntrustedChain")


def check_issued(
    one: x509.Certificate, above: x509.Certificate, now_ms: int, leeway_ms: int
) -> None:
    untrusted(one.issuer.public_bytes() == above.subject.public_bytes())
    untrusted(one.signature_algorithm_oid.dotted_string == ES384)
    untrusted(one.signature_algorithm_parameters is not None)
    check_time(one, now_ms, leeway_ms)
    untrusted(not any(ext.critical and ext.oid not in UNDERSTOOD for ext in one.extensions))
    issuer_key = key_of(above)
    try:
        issuer_key.verify(one.signature, one.tbs_certificate_bytes, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise Refused("UntrustedChain") from None


def check_time(one: x509.Certificate, now_ms: int, leeway_ms: int) -> None:
    begin = milliseconds(one.not_valid_before_utc)
    end = milliseconds(one.not_valid_after_utc)
    untrusted(begin <= now_ms + leeway_ms)
    untrusted(now_ms - leeway_ms < end + 1000)


def milliseconds(moment: dt.datetime) -> int:
    return (moment - EPOCH) // dt.timedelta(milliseconds=1)


def constraints(one: x509.Certificate) -> x509.BasicConstraints:
    try:
        return one.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return x509.BasicConstraints(ca=False, path_length=None)


def usage(one: x509.Certificate, asked: Callable[[x509.KeyUsage], bool]) -> bool:
    try:
        return asked(one.extensions.get_extension_for_class(x509.KeyUsage).value)
    except x509.ExtensionNotFound:
        return False


def key_of(one: x509.Certificate) -> ec.EllipticCurvePublicKey:
    try:
        key = one.public_key()
    except Exception:  # noqa: BLE001 - UnsupportedAlgorithm, ValueError: no key of ours
        raise Refused("UntrustedChain") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise Refused("UntrustedChain")
    return key


def check_signature(
    key: ec.EllipticCurvePublicKey, protected: bytes, payload: bytes, signature: bytes
) -> None:
    message = cbor2.dumps(["Signature1", protected, b"", payload])
    r, s = int.from_bytes(signature[:48]), int.from_bytes(signature[48:])
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise Refused("BadSignature") from None


def check_wishes(
    payload: dict[str, Any],
    policy: dict[str, Any],
    sets: list[dict[int, bytes]] | None,
    now_ms: int,
) -> None:
    age = now_ms - payload["timestamp"]
    require(age >= -policy["leeway_ms"], "StaleDocument")
    require(age <= policy["max_age_ms"], "StaleDocument")
    if policy["nonce"] is not None:
        require(payload["nonce"] == base64.b64decode(policy["nonce"]), "NonceMismatch")
    pcrs = payload["pcrs"]
    require(any(pcrs[0]) or policy["accept_debug"], "DebugEnclave")
    if sets is not None:
        matches = (all(pcrs.get(index) == value for index, value in one.items()) for one in sets)
        require(any(matches), "MeasurementMismatch")
    if policy["user_data"] is not None:
        require(payload["user_data"] == base64.b64decode(policy["user_data"]), "BindingMismatch")


def text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def main() -> None:
    """One case a line in, one verdict a line out."""
    for line in sys.stdin:
        case = json.loads(line)
        try:
            verdict = {"verdict": "accept", "claims": verify(case)}
        except Refused as why:
            verdict = {"verdict": "refuse", "code": str(why)}
        sys.stdout.write(json.dumps({"id": case["id"]} | verdict) + "\n")


if __name__ == "__main__":
    main()
