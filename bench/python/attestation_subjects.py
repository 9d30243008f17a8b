"""One part of ``attestation_speed``, in a process of its own: ``REPEATS PART``, JSON out.

Times are nanoseconds; rates are verifications a second.
"""

import datetime as dt
import json
import os
import pathlib
import sys
import threading
from collections.abc import Callable
from time import perf_counter, perf_counter_ns
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from tests.support import simulated

from cloister import attest
from cloister.moments import to_ms

VECTORS = pathlib.Path(__file__).parents[2] / "tests" / "vectors" / "attestation"
DOCUMENT = VECTORS / "2023-01-18_prod_evervault_061b9b75.cbor"
MADE_AT = 1674047239
SAME_CHAIN = 200
TOGETHER = 400
"""Cold verifications of each worker, where two work at once."""


def least(repeats: int, work: Callable[[int], object]) -> float:
    """Nanoseconds of the fastest of so many calls."""
    best = float("inf")
    for number in range(repeats):
        start = perf_counter_ns()
        work(number)
        best = min(best, perf_counter_ns() - start)
    return best


def _ours(repeats: int) -> dict[str, float]:
    document = DOCUMENT.read_bytes()
    at = dt.datetime.fromtimestamp(MADE_AT, dt.UTC)
    registers = attest.decode(document).pcrs
    accepted = {index: registers[index] for index in (0, 1, 2)}
    policies = [attest.Policy(measurements=accepted) for _ in range(repeats)]
    claims = attest.verify(document, policies[0], now=at)
    assert claims.pcrs == registers
    cold = least(repeats - 1, lambda number: attest.verify(document, policies[number + 1], now=at))
    again = least(repeats, lambda _: attest.verify(document, policies[0], now=at))
    return {"cold": cold, "known_chain": _same_chain(), "known_document": again}


def _same_chain() -> float:
    module = simulated.nsm()
    policy = simulated.policy(module)
    now_ms, at = to_ms(simulated.NOW), simulated.NOW
    documents = [
        module.document(now_ms=now_ms, nonce=number.to_bytes(16), user_data=bytes(120))
        for number in range(SAME_CHAIN + 1)
    ]
    attest.verify(documents.pop(), policy, now=at)
    return least(SAME_CHAIN, lambda number: attest.verify(documents[number], policy, now=at))


def _cryptography(repeats: int) -> dict[str, float]:
    """NSM-AP 3, as short as it can be."""
    document = DOCUMENT.read_bytes()
    payload = cbor2.loads(cbor2.loads(document)[2])
    root = x509.load_der_x509_certificate(payload["cabundle"][0])
    accepted = {index: payload["pcrs"][index] for index in (0, 1, 2)}
    at = dt.datetime.fromtimestamp(MADE_AT, dt.UTC)

    def verify(document: bytes) -> dict[str, Any]:
        protected, _, payload_bytes, signature = cbor2.loads(document)
        if cbor2.loads(protected) != {1: -35}:
            raise ValueError(protected)
        payload: dict[str, Any] = cbor2.loads(payload_bytes)
        above = root
        path = [*payload["cabundle"][1:], payload["certificate"]]
        for number, der in enumerate(path):
            one = x509.load_der_x509_certificate(der)
            one.verify_directly_issued_by(above)
            extensions = one.extensions
            constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
            usage = extensions.get_extension_for_class(x509.KeyUsage).value
            is_leaf = number == len(path) - 1
            if constraints.ca is is_leaf or not one.not_valid_before_utc <= at:
                raise ValueError(one)
            if not at <= one.not_valid_after_utc:
                raise ValueError(one)
            if not (usage.digital_signature if is_leaf else usage.key_cert_sign):
                raise ValueError(one)
            above = one
        signed = cbor2.dumps(["Signature1", protected, b"", payload_bytes])
        r, s = int.from_bytes(signature[:48]), int.from_bytes(signature[48:])
        key = above.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA384()))
        if any(payload["pcrs"][index] != value for index, value in accepted.items()):
            raise ValueError(payload["pcrs"])
        return payload

    assert verify(document) == payload
    return {"cold": least(repeats, lambda _: verify(document))}


def _together(_: int) -> dict[str, float]:
    document = DOCUMENT.read_bytes()
    at = dt.datetime.fromtimestamp(MADE_AT, dt.UTC)

    def policies() -> list[attest.Policy]:
        return [attest.Policy(dangerous_any_measurement=True) for _ in range(TOGETHER)]

    def verify(each: list[attest.Policy]) -> None:
        for policy in each:
            attest.verify(document, policy, now=at)

    mine = policies()
    start = perf_counter()
    verify(mine)
    one = TOGETHER / (perf_counter() - start)

    start_line = threading.Barrier(3)

    def worker(each: list[attest.Policy]) -> None:
        start_line.wait()
        verify(each)

    threads = [threading.Thread(target=worker, args=(policies(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    start_line.wait()
    start = perf_counter()
    for thread in threads:
        thread.join()
    two_threads = 2 * TOGETHER / (perf_counter() - start)
    return {
        "one_per_second": one,
        "two_threads_per_second": two_threads,
        "two_processes_per_second": _two_processes(verify, policies),
    }


def _two_processes(verify: Callable[[Any], None], policies: Callable[[], Any]) -> float:
    """As the threads: ready first, then started together and waited for."""
    ready, go = os.pipe(), os.pipe()
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            each = policies()
            os.write(ready[1], b"r")
            os.read(go[0], 1)
            verify(each)
            os._exit(0)
        children.append(child)
    for _ in children:
        os.read(ready[0], 1)
    start = perf_counter()
    os.write(go[1], b"gg")
    for child in children:
        _, status = os.waitpid(child, 0)
        assert status == 0
    return 2 * TOGETHER / (perf_counter() - start)


PARTS: dict[str, Callable[[int], dict[str, float]]] = {
    "ours": _ours,
    "cryptography": _cryptography,
    "together": _together,
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(PARTS[sys.argv[2]](int(sys.argv[1]))))
