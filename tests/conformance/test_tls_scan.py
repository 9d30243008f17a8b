"""testssl.sh, which tries what is known against TLS: versions, ciphers, certificate, attacks."""

import json
import pathlib
import shutil
import subprocess

import pytest
from tests.support.dev_process import dev_process
from tests.support.recording_process import recording

PROGRAM = shutil.which("testssl") or shutil.which("testssl.sh")
pytestmark = [
    pytest.mark.conformance,
    pytest.mark.timeout(900),
    pytest.mark.skipif(PROGRAM is None, reason="needs testssl.sh"),
]
# The development CA publishes no revocation lists.
ACCEPTED = {"cert_revocation"}
OFFERED = {"TLS1_2", "TLS1_3"}
REFUSED = {"SSLv2", "SSLv3", "TLS1", "TLS1_1"}
ATTACKS = {"heartbleed", "CCS", "ROBOT", "BEAST", "LUCKY13", "RC4", "SWEET32", "LOGJAM", "DROWN"}


def test_nothing_that_is_known_against_tls_works(tmp_path: pathlib.Path) -> None:
    found = tmp_path / "found.json"
    with recording() as process, dev_process(process.address, tmp_path) as plane:
        command = [str(PROGRAM), "--quiet", "--color", "0", "--warnings", "off"]
        command += ["-p", "-s", "-S", "-U", "--add-ca", plane.ca_file, "--jsonfile", str(found)]
        subprocess.run([*command, plane.url], capture_output=True, check=False, timeout=600)
    findings = {entry["id"]: entry for entry in json.loads(found.read_text(encoding="utf-8"))}
    assert all(findings[name]["finding"].startswith("offered") for name in OFFERED)
    assert all(findings[name]["finding"].startswith("not offered") for name in REFUSED)
    assert findings.keys() >= ATTACKS
    bad = {
        name: entry["finding"]
        for name, entry in findings.items()
        if entry["severity"] in {"MEDIUM", "HIGH", "CRITICAL", "FATAL"} and name not in ACCEPTED
    }
    assert not bad
