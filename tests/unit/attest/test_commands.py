"""``cloister attestation verify/show`` and ``cloister attest``: output and exit status."""

import base64
import datetime as dt
import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest
from tests.support import simulated
from tests.support.enclave_server import serving

GENUINE = simulated.VECTORS / "2026-06-30_prod_tkhq_277e236b.cbor"
AT = "@1782779620"
PCR0 = (
    "ea7cec511c07e6c4049819d3627b460fc2ae84e0873f757214355c7dfa86b0ca"
    "4712a499656592a3fdfe60b9ad99a96d"
)
ANY = "--dangerous-any-measurement"


def cloister(*words: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "cloister.cli.main", *map(str, words)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=60)


def verify(*words: object, stdin: bytes = b"") -> tuple[int, dict[str, Any]]:
    done = cloister("attestation", "verify", *words, "--json", stdin=stdin)
    return done.returncode, json.loads(done.stdout)


def test_a_genuine_document_verifies_at_its_own_time() -> None:
    status, result = verify(GENUINE, "--pcr", f"0={PCR0}", "--at", AT)
    assert status == 0
    assert result["valid"] is True
    assert result["module_id"] == "i-06f4d13c6679a7232-enc019f15f1504dc31d"
    assert result["timestamp"] == "2026-06-30T00:33:40.694Z"
    assert result["pcrs"]["PCR0"] == PCR0
    status, result = verify(
        GENUINE, "--pcr", f"PCR0={PCR0.upper()}", "--at", "2026-06-30T00:34:00Z"
    )
    assert status == 0


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        ([GENUINE, "--at", AT], 2, "UsageError"),
        ([GENUINE, ANY], 1, "UntrustedChain"),
        ([GENUINE, "--pcr", f"0={PCR0}", ANY, "--at", AT], 2, "UsageError"),
        ([GENUINE, "--pcr", f"0={'00' * 48}", "--at", AT], 1, "MeasurementMismatch"),
        ([GENUINE, "--pcr", "0=zz", "--at", AT], 2, "UsageError"),
        ([GENUINE, "--pcr", f"3={PCR0}", "--at", AT], 2, "UsageError"),
        ([GENUINE, "--pcr", f"32={PCR0}", "--at", AT], 2, "UsageError"),
        ([GENUINE, "--pcr", f"0={PCR0}", "--pcr", f"0={'00' * 48}"], 2, "UsageError"),
        ([GENUINE, ANY, "--at", "yesterday"], 2, "UsageError"),
        ([GENUINE, ANY, "--at", AT, "--nonce", "aa"], 1, "NonceMismatch"),
        ([GENUINE, ANY, "--at", AT, "--user-data", "aa"], 1, "BindingMismatch"),
        ([GENUINE, ANY, "--at", "@1782780620", "--max-age", "5m"], 1, "StaleDocument"),
        (["/does/not/exist", ANY], 66, "MissingInput"),
        ([GENUINE, "--toml", "/does/not/exist"], 66, "MissingInput"),
        ([GENUINE, ANY, "--dangerous-root", "/does/not/exist"], 66, "MissingInput"),
        (["--nonsense"], 2, "UsageError"),
        ([simulated.VECTORS / "manifest.json", ANY], 65, "MalformedDocument"),
    ],
)
def test_a_refusal_has_its_exit_status(words: list[object], status: int, code: str) -> None:
    found, result = verify(*words)
    assert (found, result["error"]["code"]) == (status, code)


def test_debug_and_bad_signature() -> None:
    debug = simulated.VECTORS / "2024-11-14_debug_mystenlabs_7d81da0d.cbor"
    at = "@1731627987"
    status, result = verify(debug, ANY, "--at", at)
    assert (status, result["error"]["code"]) == (1, "DebugEnclave")
    status, result = verify(debug, ANY, "--at", at, "--dangerous-accept-debug")
    assert (status, result["debug"]) == (0, True)
    bad = simulated.VECTORS / "2022-11-09_badsig_veracruz-project_7df2cdc0.cbor"
    manifest = json.loads((simulated.VECTORS / "manifest.json").read_text())
    moment = next(one["timestamp_ms"] for one in manifest if one["kind"] == "badsig") // 1000
    status, result = verify(bad, ANY, "--at", f"@{moment}", "--dangerous-accept-debug")
    assert (status, result["error"]["code"]) == (1, "BadSignature")


def test_base64_and_standard_input() -> None:
    raw = GENUINE.read_bytes()
    for data in (raw, base64.b64encode(raw), base64.encodebytes(raw)):
        assert verify("-", ANY, "--at", AT, stdin=data)[0] == 0
    assert verify("-", ANY, "--at", AT, stdin=b"")[0] == 65
    assert verify("-", ANY, "--at", AT, stdin=b"\x84" * 100_000)[0] == 65


def test_enclave_toml_says_what_is_expected(tmp_path: pathlib.Path) -> None:
    toml = tmp_path / "enclave.toml"
    toml.write_text(f'version = 1\n[attestation]\nHashAlgorithm = "x"\nPCR0 = "{PCR0}"\n')
    assert verify(GENUINE, "--toml", toml, "--at", AT)[0] == 0
    toml.write_text(f'version = 1\n[attestation]\nPCR0 = "{"11" * 48}"\n')
    status, result = verify(GENUINE, "--toml", toml, "--at", AT)
    assert (status, result["error"]["code"]) == (1, "MeasurementMismatch")
    toml.write_text("version = 1\n")
    status, result = verify(GENUINE, "--toml", toml, "--at", AT)
    assert (status, result["error"]["code"]) == (78, "ConfigError")


def test_show_believes_nothing_and_says_so() -> None:
    done = cloister("attestation", "show", GENUINE)
    assert done.returncode == 0
    assert b"nothing in this document was verified" in done.stderr
    assert PCR0.encode() in done.stdout
    result = json.loads(cloister("attestation", "show", GENUINE, "--json").stdout)
    assert result["verified"] is False
    assert len(result["certificates"]) == 5
    assert cloister("attestation", "show", simulated.VECTORS / "manifest.json").returncode == 65


def test_attest_a_running_enclave(tmp_path: pathlib.Path) -> None:
    module = simulated.nsm(now=dt.datetime.now(dt.UTC))
    root = tmp_path / "root.pem"
    root.write_text(module.root_pem)
    saved = tmp_path / "doc.cbor"
    with serving(module, tmp_path / "enclave") as enclave:
        common = [enclave.url, "--ca-file", enclave.ca_file, "--json"]
        right = ["--pcr", f"0={simulated.PCR0.hex()}", "--dangerous-root", root]
        done = cloister("attest", *common, *right, "--fresh", "--output", saved)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["valid"] is True
        assert result["tls_spki"] == enclave.spki.hex() == result["user_data"]
        assert verify(saved, *right)[0] == 0

        def code(*words: object) -> tuple[int, str]:
            done = cloister("attest", *words)
            return done.returncode, json.loads(done.stdout)["error"]["code"]

        wrong = ["--pcr", f"0={'00' * 48}", "--dangerous-root", root]
        assert code(*common, *wrong) == (1, "MeasurementMismatch")
        assert code(*common, *right[:2]) == (1, "UntrustedChain")
        assert code(enclave.url, "--json", *right) == (69, "TransportError")
        assert code(*common) == (2, "UsageError")
        assert code(*common, *right, "--nonce", "aa") == (2, "UsageError")
        assert code("http://127.0.0.1:1", "--json", *right) == (2, "UsageError")
        assert code(*common, *right, "--output", tmp_path / "no" / "doc") == (73, "OutputError")
        enclave.answer_for_documents = lambda: b"{}"
        assert code(*common, *right) == (65, "MalformedDocument")
