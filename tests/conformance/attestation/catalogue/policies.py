"""What the caller insists on: nonce, binding, registers; and policies that nobody can mean."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from tests.conformance.attestation.catalogue.case import Case, Policy, Room, right, with_field
from tests.conformance.attestation.forge import cbor
from tests.conformance.attestation.forge.certificates import HOUR, NOW, key
from tests.conformance.attestation.forge.documents import (
    NONCE,
    PCR0,
    PCR1,
    PCR2,
    PCR4,
    USER_DATA,
    ZERO,
    registers,
)

DEBUG = "DebugEnclave"
MISMATCH = "MeasurementMismatch"
OTHER = bytes([0x77] * 48).hex()
ALL = {"0": PCR0.hex(), "1": PCR1.hex(), "2": PCR2.hex()}


def cases() -> Iterator[Case]:
    room = Room("policy")
    _bytes(room)
    _measurements(room)
    _debug(room)
    _impossible(room)
    return iter(room)


def order() -> Iterator[Case]:
    """Which reason is given when there are several: the order of the rules."""
    room = Room("order")
    debug = registers({0: ZERO})
    malformed = with_field("digest", cbor.text("SHA1"))
    signed = with_field("pcrs", debug)
    forged = right()
    forged.fields["pcrs"] = debug
    forged.signer = key("another")
    everything = Policy(
        nonce=b"other", user_data=b"other", measurements=[{"0": OTHER}], max_age_ms=HOUR
    )
    but_the_nonce = dataclasses.replace(everything, nonce=NONCE)
    but_the_key = Policy(nonce=NONCE, user_data=b"other")
    expired, old = NOW + 100 * HOUR, NOW + 2 * HOUR
    # Each document breaks its rule and every later one that a document can break.
    table: list[tuple[str, str, str, str, bytes, int, Policy]] = [
        ("form-first", "malformed", "P3", "MalformedDocument", malformed, expired, everything),
        ("chain-next", "expired", "C6", "UntrustedChain", forged.encode(), expired, everything),
        ("signature-next", "re-signed", "S1", "BadSignature", forged.encode(), old, everything),
        ("age-next", "too old", "T2", "StaleDocument", signed, old, everything),
        ("nonce-next", "another nonce", "T3", "NonceMismatch", signed, NOW, everything),
        ("debug-next", "a debug enclave", "M1", DEBUG, signed, NOW, but_the_nonce),
        ("measurement-next", "registers", "M2", MISMATCH, right().encode(), NOW, but_the_nonce),
        ("binding-last", "binding", "B1", "BindingMismatch", right().encode(), NOW, but_the_key),
    ]
    for name, first, rule, code, document, time_ms, policy in table:
        says = f"{first}, and all that comes later"
        room.refuse(name, says, rule, code, document, time_ms=time_ms, policy=policy)
    return iter(room)


def _bytes(room: Room) -> None:
    """What the document must carry, byte for byte."""
    for field, expected, rule, code in (
        ("nonce", NONCE, "T3", "NonceMismatch"),
        ("user_data", USER_DATA, "B1", "BindingMismatch"),
    ):
        room.accept(f"{field}-right", "as expected", rule, policy=Policy(**{field: expected}))

        def refuse(
            name: str,
            says: str,
            value: bytes,
            field: str = field,
            rule: str = rule,
            code: str = code,
        ) -> None:
            policy = Policy(**{field: value})
            room.refuse(f"{field}-{name}", says, rule, code, policy=policy, twin=f"{field}-right")

        refuse("other", "one bit is another", expected[:-1] + bytes([expected[-1] ^ 1]))
        refuse("shorter", "the beginning of it", expected[:-1])
        refuse("longer", "a byte more", expected + b"\0")
        refuse("empty", "no byte is expected", b"")
        for name, says, value in (
            ("absent", "null", cbor.NULL),
            ("of-none", "no bytes", cbor.data(b"")),
        ):
            document = with_field(field, value)
            policy = Policy(**{field: expected})
            room.refuse(
                f"{field}-{name}",
                f"{says} in the document",
                rule,
                code,
                document,
                policy=policy,
                twin=f"{field}-right",
            )
        policy = Policy(**{field: b""})
        room.accept(
            f"{field}-empty-both",
            "no bytes, as expected",
            rule,
            with_field(field, cbor.data(b"")),
            policy=policy,
        )
        room.refuse(
            f"{field}-null-for-empty",
            "null where no bytes are expected",
            rule,
            code,
            with_field(field, cbor.NULL),
            policy=policy,
            twin=f"{field}-empty-both",
        )
    both = Policy(nonce=USER_DATA, user_data=NONCE)
    room.refuse("swapped", "each in the other's field", "T3", "NonceMismatch", policy=both)


def _measurements(room: Room) -> None:
    def accept(name: str, says: str, sets: Any, document: bytes | None = None) -> None:
        room.accept(f"measured-{name}", says, "M2", document, policy=Policy(measurements=sets))

    def refuse(name: str, says: str, sets: Any, document: bytes | None = None) -> None:
        policy = Policy(measurements=sets)
        room.refuse(
            f"measured-{name}", says, "M2", MISMATCH, document, policy=policy, twin="measured-three"
        )

    accept("three", "PCR0, PCR1 and PCR2", [ALL])
    accept("any", "any registers, which was asked for", "any")
    accept("upper-case", "hexadecimal digits of the other case", [{"0": PCR0.hex().upper()}])
    accept("second-set", "the second of two sets", [{"0": OTHER}, ALL])
    accept("zero-register", "a register that is zero, besides", [ALL | {"3": ZERO.hex()}])
    accept("without-0", "PCR2 alone", [{"2": PCR2.hex()}])
    for index in ("0", "1", "2"):
        refuse(f"{index}-other", f"PCR{index} is another", [ALL | {index: OTHER}])
    refuse("no-set", "neither of two sets", [{"0": OTHER}, ALL | {"2": OTHER}])
    refuse(
        "mixed",
        "each register is in a set, none has both",
        [
            {"0": PCR0.hex(), "1": OTHER},
            {"0": OTHER, "1": PCR1.hex()},
        ],
    )
    refuse("absent", "PCR31, which the document has not", [ALL | {"31": ZERO.hex()}])
    refuse("moved", "the value of PCR1 in PCR0", [{"0": PCR1.hex()}])
    short = with_field("pcrs", registers({0: PCR0, 1: PCR1[:32], 2: PCR2}))
    refuse("shorter", "PCR1 has the first 32 of its bytes", [ALL], short)
    longer = with_field("pcrs", registers({0: PCR0, 1: PCR1 + bytes(16), 2: PCR2}))
    refuse("longer", "PCR1 has 16 zeros more", [ALL], longer)


def _debug(room: Room) -> None:
    zeros = with_field("pcrs", registers(dict.fromkeys(range(16), ZERO)))
    with_4 = with_field("pcrs", registers({0: ZERO, 1: ZERO, 2: ZERO, 3: PCR4, 4: PCR4}))
    with_1 = with_field("pcrs", registers({0: ZERO, 1: PCR1, 2: PCR2}))
    short = with_field("pcrs", registers({0: bytes(32), 1: PCR1}))
    measured = [{"0": ZERO.hex()}]
    for name, says, document in (
        ("zeros", "all registers are zero", zeros),
        ("with-4", "PCR3 and PCR4 are not, as in genuine ones", with_4),
        ("with-1", "PCR0 alone is", with_1),
        ("short", "PCR0 is 32 zeros", short),
    ):
        allowed = Policy(measurements="any", accept_debug=True)
        room.accept(
            f"debug-{name}-allowed", f"{says}; debug is allowed", "M1", document, policy=allowed
        )
        room.refuse(
            f"debug-{name}",
            says,
            "M1",
            DEBUG,
            document,
            policy=Policy(measurements="any"),
            twin=f"debug-{name}-allowed",
        )
    room.refuse(
        "debug-measured",
        "zeros, which are what is accepted, without the flag",
        "M1",
        DEBUG,
        zeros,
        policy=Policy(measurements=measured),
        twin="debug-measured-allowed",
    )
    room.accept(
        "debug-measured-allowed",
        "the same with the flag",
        "M1",
        zeros,
        policy=Policy(measurements=measured, accept_debug=True),
    )
    room.refuse(
        "debug-allowed-measured",
        "the flag accepts no other registers",
        "M2",
        MISMATCH,
        zeros,
        policy=Policy(accept_debug=True),
        twin="debug-measured-allowed",
    )
    room.accept(
        "not-debug",
        "PCR0 is not zero, all others are",
        "M1",
        with_field("pcrs", registers({0: PCR0, 1: ZERO, 2: ZERO})),
    )
    almost = bytes(47) + b"\1"
    room.accept(
        "not-debug-almost",
        "PCR0 is zero but for one bit",
        "M1",
        with_field("pcrs", registers({0: almost})),
        policy=Policy(measurements=[{"0": almost.hex()}]),
    )


def _impossible(room: Room) -> None:
    """These are mistakes of the caller, and say so before a document is looked at."""
    measured: dict[str, tuple[str, Any]] = {
        "no-sets": ("nothing is accepted", []),
        "empty-set": ("a set without a register", [{}]),
        "no-code": ("PCR3 and PCR4 name no code", [{"3": PCR4.hex(), "4": PCR4.hex()}]),
        "index-32": ("a register that is not", [ALL | {"32": OTHER}]),
        "of-47": ("a value of 47 bytes", [{"0": OTHER[2:]}]),
        "of-49": ("a value of 49 bytes", [{"0": OTHER + "00"}]),
        "no-hex": ("a value that is no hexadecimal", [{"0": "z" * 96}]),
        "second-empty": ("a right set and an empty one", [ALL, {}]),
    }
    for name, (says, sets) in measured.items():
        room.refuse(
            f"impossible-{name}", says, "Q1", "PolicyError", policy=Policy(measurements=sets)
        )
    room.refuse("impossible-age", "no age", "Q2", "PolicyError", policy=Policy(max_age_ms=0))
    much = Policy(leeway_ms=HOUR + 1)
    room.refuse(
        "impossible-leeway", "more than an hour of leeway", "Q2", "PolicyError", policy=much
    )
    room.accept("leeway-hour", "an hour of leeway", "Q2", policy=Policy(leeway_ms=HOUR))
