"""``cloister attestation show``: what people read, and what a stranger cannot do with it."""

import dataclasses
import datetime as dt
import json
import subprocess
import sys

import pytest
from tests.support import simulated

from cloister import attest
from cloister.cli import _document_text
from cloister.testing import document

GENUINE = simulated.VECTORS / "2026-06-30_prod_tkhq_277e236b.cbor"
DEBUG = simulated.VECTORS / "2024-11-14_debug_mystenlabs_7d81da0d.cbor"


def shown(raw: bytes, now: dt.datetime) -> list[str]:
    return _document_text.as_text(attest.decode(raw), now=now).splitlines()


def test_a_genuine_document_is_told_in_full() -> None:
    now = dt.datetime(2026, 6, 30, 1, 33, 40, 694_000, tzinfo=dt.UTC)
    lines = shown(GENUINE.read_bytes(), now)
    assert lines[0] == "module       i-06f4d13c6679a7232-enc019f15f1504dc31d"
    assert lines[1] == "made         2026-06-30T00:33:40Z, 60 min ago"
    assert lines[2] == "debug        no"
    assert (
        lines[3] == f"user data    32 bytes: {attest.decode(GENUINE.read_bytes()).user_data.hex()}"
    )
    assert lines[4] == "nonce        -"
    assert lines[5].startswith("public key   130 bytes: 049e23dd")
    pcrs = {line.split()[0]: line.split("  ")[-1] for line in lines if line.startswith("PCR")}
    assert pcrs == {
        "PCR0": "image",
        "PCR1": "kernel and boot ramdisk",
        "PCR2": "application",
        "PCR3": "IAM role of the parent instance",
        "PCR4": "id of the parent instance",
        "PCR8": "certificate that signed the image (zero)",
        "PCR16": "the application's own",
        "PCR17": "the application's own",
    }
    assert "zero: PCR5-7, PCR9-15, PCR18-31" in lines
    root = lines.index("1  CN=aws.nitro-enclaves,OU=AWS,O=Amazon,C=US")
    assert lines[root + 1 : root + 4] == [
        "   its own issuer: the root of AWS that is pinned here",
        "   2019-10-28T13:28:05Z to 2049-10-28T14:28:05Z, expires in 8521 days",
        f"   SHA-256 {_document_text.AWS_ROOT_SHA256}",
    ]
    assert lines[root + 4].startswith("2  CN=f5cd304bf64d9930.us-east-1.aws.nitro-enclaves,")
    instance = "CN=i-06f4d13c6679a7232.us-east-1.aws.nitro-enclaves"
    leaf = "CN=i-06f4d13c6679a7232-enc019f15f1504dc31d.us-east-1.aws"
    rest = "OU=AWS,O=Amazon,L=Seattle,ST=Washington,C=US"
    # The leaf lives for three hours, and an hour of them is over.
    assert lines[-4:-1] == [
        f"5  {leaf},{rest}",
        f"   issued by {instance},{rest}",
        "   2026-06-30T00:32:44Z to 2026-06-30T03:32:47Z, expires in 119 min",
    ]


def test_ages_are_told_from_both_sides() -> None:
    made = dt.datetime(2030, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    raw = document(now=made).raw

    def made_line(**after: int) -> str:
        return shown(raw, made + dt.timedelta(**after))[1].rpartition(", ")[2]

    assert made_line(seconds=5) == "5 s ago"
    assert made_line(minutes=2) == "2 min ago"
    assert made_line(hours=3, minutes=59) == "3 h ago"
    assert made_line(days=400) == "400 days ago"
    assert made_line(hours=-3) == "in 3 h"
    later = "\n".join(shown(raw, made + dt.timedelta(hours=5)))
    assert "expired 2 h ago" in later
    earlier = "\n".join(shown(raw, made - dt.timedelta(days=30)))
    assert "valid in 30 days" in earlier


def test_debug_and_a_foreign_root_are_told() -> None:
    lines = shown(DEBUG.read_bytes(), simulated.NOW)
    assert "debug        yes: PCR0 is zero, so it says nothing about the code" in lines
    assert f"PCR0  {'00' * 48}  image (zero)" in lines
    simulated_one = shown(document(now=simulated.NOW).raw, simulated.NOW)
    assert "   its own issuer" in simulated_one
    assert not [line for line in simulated_one if "AWS that is pinned" in line]


def test_registers_of_the_application_are_told() -> None:
    raw = document(pcrs={0: b"\x01" * 48, 20: b"\x02" * 48, 10: b"\x03" * 48}).raw
    lines = shown(raw, simulated.NOW)
    assert f"PCR20 {'02' * 48}  the application's own" in lines
    assert f"PCR10 {'03' * 48}  reserved" in lines


def test_a_name_that_cannot_be_read_is_said_to_be_none() -> None:
    """Our reader of certificates does not look at names; the one that shows them may refuse."""
    decoded = attest.decode(document(now=simulated.NOW).raw)
    odd = dataclasses.replace(decoded.certificates[1], der=b"\x30\x00")
    certificates = (decoded.certificates[0], odd, *decoded.certificates[2:])
    decoded = dataclasses.replace(decoded, certificates=certificates)
    lines = _document_text.as_text(decoded, now=simulated.NOW).splitlines()
    assert "2  a name that cannot be read" in lines
    told = _document_text.as_json(decoded)["certificates"]
    assert told[1]["subject"] == "a name that cannot be read"
    assert "simulated-nsm-root.development.invalid" in told[0]["subject"]


@pytest.mark.parametrize(
    "hostile", ["\x1b]0;owned\x07", "a\nPCR0  forged", "a\r\x9b2J", "\u202eevil"]
)
def test_a_stranger_cannot_talk_to_the_terminal(hostile: str) -> None:
    """The id is text of whoever wrote the document, and anybody can."""
    lines = shown(document(module_id=hostile, now=simulated.NOW).raw, simulated.NOW)
    assert lines[0].startswith("module       ")
    assert lines[0].isprintable()
    assert not [line for line in lines if "forged" in line and line.startswith("PCR")]


def test_the_command_prints_the_text_and_one_object() -> None:
    command = [sys.executable, "-m", "cloister.cli.main", "attestation", "show", str(GENUINE)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "PCR0" in done.stdout
    assert "the root of AWS" in done.stdout
    assert "nothing in this document was verified" in done.stderr
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert told["verified"] is False
    assert told["pcrs"].keys() == {f"PCR{index}" for index in range(32)}
    root, *_, leaf = told["certificates"]
    assert root["subject"] == root["issuer"]
    assert root["sha256"] == _document_text.AWS_ROOT_SHA256
    assert leaf["issuer"] != leaf["subject"]
    assert set(leaf) == {"not_before", "not_after", "der", "subject", "issuer", "sha256"}
