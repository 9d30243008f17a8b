"""``cloister attest`` and ``attestation verify`` as processes: every exit status of their page.

0 when everything held, 1 when a document is refused, 2 for the command line, 65 for what cannot be
decoded; and 66, 69 and 73 for files and connections. The enclave is a simulated one.
"""

import base64
import json
import pathlib
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from cloister.platform import local
from cloister.platform.registry import Registry
from cloister.testing import Fault, SimulatedEnclave, document

PCR0 = "12" * 48
UUID_OF_SHOP = "0d5a2a8e-6a51-4f3b-bf0f-4d8c3f0a9e33"


@pytest.fixture(scope="module")
def enclave() -> Iterator[SimulatedEnclave]:
    with SimulatedEnclave(pcrs={"PCR0": PCR0, "PCR8": "34" * 48}) as running:
        yield running


def cloister(*words: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "cloister.cli.main", *map(str, words)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=60)


def attest(enclave: SimulatedEnclave, *words: object) -> subprocess.CompletedProcess[bytes]:
    root = ["--dangerous-root", enclave.nsm_root_file]
    return cloister("attest", enclave.url, "--ca-file", enclave.ca_file, *root, *words)


STATUS = {
    Fault.BAD_SIGNATURE: 1,
    Fault.DEBUG: 1,
    Fault.DOWN: 69,
    Fault.FROM_THE_FUTURE: 1,
    Fault.NOT_A_DOCUMENT: 65,
    Fault.NO_DOCUMENT: 69,
    Fault.OTHER_CA: 69,
    Fault.OTHER_CODE: 1,
    Fault.OTHER_KEY: 1,
    Fault.OTHER_NONCE: 1,
    Fault.OTHER_ROOT: 1,
    Fault.STALE: 1,
}


@pytest.mark.parametrize("fault", Fault)
def test_each_failure_has_its_status_and_saves_nothing(
    enclave: SimulatedEnclave, fault: Fault, tmp_path: pathlib.Path
) -> None:
    saved = tmp_path / "doc.cbor"
    words = ["--pcr", f"0={PCR0}", "--fresh", "--output", saved, "--json"]
    with enclave.failing(fault):
        done = attest(enclave, *words)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (STATUS[fault], fault.error.__name__)
    assert error["message"]
    assert not saved.exists()
    assert list(tmp_path.iterdir()) == []


def test_what_holds_is_saved_and_holds_again(
    enclave: SimulatedEnclave, tmp_path: pathlib.Path
) -> None:
    saved, toml = tmp_path / "doc.cbor", tmp_path / "enclave.toml"
    toml.write_text(f'[attestation]\nPCR0 = "{PCR0}"\nPCR8 = "{"34" * 48}"\n')
    nonce = "ab" * 20
    done = attest(enclave, "--toml", toml, "--nonce", nonce, "--output", saved, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["valid"], said["nonce"], said["pcrs"]["PCR0"]) == (True, nonce, PCR0)
    assert said["enclave"] == enclave.url
    accepted = ["--toml", toml, "--dangerous-root", enclave.nsm_root_file, "--nonce", nonce]
    raw = saved.read_bytes()
    lines = base64.encodebytes(raw)
    for data in (raw, base64.b64encode(raw), base64.urlsafe_b64encode(raw).rstrip(b"="), lines):
        done = cloister("attestation", "verify", "-", *accepted, "--json", stdin=data)
        assert done.returncode == 0, done.stdout
        assert json.loads(done.stdout)["valid"] is True
    bound = ["--user-data", said["tls_spki"]]
    assert cloister("attestation", "verify", saved, *accepted, *bound).returncode == 0
    assert cloister("attestation", "verify", saved, *accepted, "--user-data", "00").returncode == 1
    # The text for people.
    done = attest(enclave, "--toml", toml)
    assert done.returncode == 0
    assert b"valid: yes" in done.stdout


def test_each_register_is_named_that_differs(enclave: SimulatedEnclave) -> None:
    done = attest(enclave, "--pcr", f"0={'ab' * 48}", "--pcr", f"PCR8={'34' * 48}")
    assert done.returncode == 1
    said = done.stderr.decode()
    assert f"PCR0 expected {'ab' * 48}" in said
    assert f"PCR0 received {PCR0}" in said
    assert "hint: " in said
    assert done.stdout == b""
    several = ["--pcr", f"0={'ab' * 48}", "--pcr", f"8={'cd' * 48}"]
    said = attest(enclave, *several).stderr.decode()
    for register, expected, received in (("PCR0", "ab", "12"), ("PCR8", "cd", "34")):
        assert f"{register} expected {expected * 48}" in said
        assert f"{register} received {received * 48}" in said


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--pcr", "0=ab"],
        ["--pcr", f"4={PCR0}"],
        ["--pcr", f"0={PCR0}", "--dangerous-any-measurement"],
        ["--pcr", f"0={PCR0}", "--nonce", "ab"],
        ["--pcr", f"0={PCR0}", "--nonce", "ab" * 20, "--fresh"],
        ["--pcr", f"0={PCR0}", "--max-age", "0s"],
        ["--pcr", f"0={PCR0}", "--no-such-option"],
    ],
    ids=lambda words: " ".join(words).replace(PCR0, "…") or "nothing",
)
def test_a_wrong_command_line_is_2_and_asks_nobody(
    enclave: SimulatedEnclave, words: list[str]
) -> None:
    before = enclave.data_plane.stats()["connections"]
    done = attest(enclave, *words, "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "UsageError"
    assert enclave.data_plane.stats()["connections"] == before


def test_files_have_statuses_of_their_own(
    enclave: SimulatedEnclave, tmp_path: pathlib.Path
) -> None:
    right = ["--pcr", f"0={PCR0}"]
    assert attest(enclave, *right, "--output", tmp_path / "no" / "doc").returncode == 73
    assert attest(enclave, "--toml", tmp_path / "none.toml").returncode == 66
    assert attest(enclave, "--eif", tmp_path / "none.eif").returncode == 66
    (tmp_path / "bad.eif").write_bytes(b"not an image")
    assert attest(enclave, "--eif", tmp_path / "bad.eif").returncode == 65
    (tmp_path / "doc").write_bytes(b"\x84 not a document")
    for command in (["verify", "--dangerous-any-measurement"], ["show"]):
        done = cloister("attestation", *command, tmp_path / "doc")
        assert done.returncode == 65, done.stderr
        assert cloister("attestation", *command, tmp_path / "none").returncode == 66
        assert cloister("attestation", *command, "-", stdin=b"%%%").returncode == 65
        assert cloister("attestation", *command).returncode == 2


def test_any_measurement_has_to_be_asked_for_by_name(tmp_path: pathlib.Path) -> None:
    made = document()
    (tmp_path / "doc").write_bytes(made.raw)
    root = made.trust_anchor.dangerous_der
    assert root is not None
    (tmp_path / "root.der").write_bytes(root)
    words = ["attestation", "verify", tmp_path / "doc", "--dangerous-root", tmp_path / "root.der"]
    assert cloister(*words).returncode == 2
    done = cloister(*words, "--dangerous-any-measurement")
    assert done.returncode == 0
    assert b"any measurement is accepted" in done.stderr


@pytest.fixture
def registered(tmp_path: pathlib.Path) -> pathlib.Path:
    """An enclave.toml with a store beside it, in which the image of ``enclave`` is deployed."""
    config = tmp_path / "enclave.toml"
    store = local.init_store(tmp_path, name="shop", uuid=UUID_OF_SHOP)
    config.write_text(
        f'version = 1\nname = "shop"\nuuid = "{UUID_OF_SHOP}"\napp_uuid = "{store.app_uuid}"\n'
        '[tls]\ndomains = ["shop.invalid"]\n'
    )
    return config


def deploy(config: pathlib.Path, **pcrs: str) -> None:
    database = local.open_store(config.parent)
    values = {0: PCR0, 1: "00" * 48, 2: "00" * 48, 8: "34" * 48}
    values |= {int(name[3:]): value for name, value in pcrs.items()}
    try:
        Registry(database).add_deployment(
            uuid.UUID(UUID_OF_SHOP),
            {index: bytes.fromhex(value) for index, value in values.items()},
        )
    finally:
        database.close()


def test_an_enclave_of_the_registry_is_attested_by_what_is_deployed(
    enclave: SimulatedEnclave, registered: pathlib.Path
) -> None:
    def ask(name: str, *words: object) -> subprocess.CompletedProcess[bytes]:
        return attest(enclave, "--enclave", name, "--config", registered, *words)

    nothing = ask("shop")
    assert (nothing.returncode, b"no image of the enclave `shop`" in nothing.stderr) == (66, True)
    deploy(registered, PCR0="56" * 48)
    other = ask("shop")
    assert other.returncode == 1
    assert b"56" * 48 in other.stderr
    # One deployment ahead, as in a change of versions: each of them is accepted.
    deploy(registered)
    for name in ("shop", UUID_OF_SHOP):
        assert ask(name, "--json").returncode == 0
    # The other sources narrow it down.
    assert ask("shop", "--pcr", f"0={PCR0}").returncode == 0
    assert ask("shop", "--pcr", f"0={'56' * 48}").returncode == 1
    narrowed = ask("shop", "--pcr", f"0={'78' * 48}")
    assert (narrowed.returncode, b"no deployment" in narrowed.stderr) == (2, True)
    assert ask("shop", "--dangerous-any-measurement").returncode == 2
    unknown = ask("shopp")
    assert (unknown.returncode, b"there is no enclave `shopp`" in unknown.stderr) == (66, True)


def test_an_enclave_is_looked_for_at_its_own_domain(registered: pathlib.Path) -> None:
    deploy(registered)
    away = cloister("attest", "--enclave", "shop", "--config", registered, "--timeout", "2s")
    assert (away.returncode, b"shop.invalid" in away.stderr) == (69, True)
    nowhere = cloister("attest", "--pcr", f"0={PCR0}", "--config", registered.parent / "none.toml")
    assert (nowhere.returncode, b"no URL" in nowhere.stderr) == (2, True)
