"""T-18 and T-19, whole: after a full run nothing that was written or can be listed has a secret.

One run with every kind of secret, all of them known to the test: API key, app key, service key,
master key, sealing secret, the value of a secret variable, and the private TLS key, which the test
opens as only the enclave can. Then all that the system wrote is searched, files, logs, what was
said, and what `/proc` shows of host processes.
"""

import base64
import hashlib
import json
import pathlib
import stat
from collections.abc import Iterator

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_der_private_key
from sqlalchemy import select
from tests.support.local_run import LocalRun, Somebody, make_project, running

from cloister import crypto
from cloister.cli import _local_key
from cloister.platform import local, sealed_objects
from cloister.platform.records import read_deployments, read_enclave
from cloister.platform.registry import Registry
from cloister.platform.tables import AppKey, Enclave, ServiceKeyRow

MARK = "t18-value-of-a-secret-5b0e"
CLEAR = "t18-clear-text-of-a-client-77c1"


class Whole:
    """A run that has ended, what it held, and what is left of it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.who = Somebody(home=folder / "home")
        self.who.home.mkdir()
        self.project = make_project(folder, self.who)
        self.said = self.who.run("env", "set", "TOKEN", "--secret", folder=self.project, given=MARK)
        with running(self.who, self.project) as run:
            self.api_key = str(run.said["api_key"])
            self._use(run)
            self.shown = dict(shown_by_proc(run.process.pid))
            self.inside = dict(limits_inside(run.said["init_pid"]))
            run.process.send_signal(2)
            out, err = run.process.communicate(timeout=60)
        self.console = out + err
        self.secrets = self._secrets()

    def _use(self, run: LocalRun) -> None:
        body = json.dumps(crypto.encrypt({"a": CLEAR}, bytes.fromhex(run.said["app_public_key"])))
        json_type = ("-H", "content-type: application/json")
        status, answer = run.curl("/hello?q=1", "-d", body, *json_type)
        assert status == 200
        assert CLEAR in answer, "it was opened for the process"
        assert run.curl("/", key="ck_wrong_key")[0] == 401
        flipped = body[:-10] + ("A" if body[-10] != "A" else "B") + body[-9:]
        assert run.curl("/hello", "-d", flipped, *json_type)[0] == 422

    def _secrets(self) -> dict[str, bytes]:
        store = local.open_store(self.project)
        try:
            with store.writing() as session:
                app = session.scalars(select(AppKey)).one()
                service = session.scalars(select(ServiceKeyRow)).one()
                uuid = session.scalars(select(Enclave.uuid)).one()
                assert read_enclave(session, uuid) is not None
                (deployment,) = read_deployments(session, uuid)
                vault = store.vault
                sealing = sealed_objects.secret(session, vault, uuid, now_ms=0)
                found = {
                    "app key": vault.open(app.private_sealed, place=f"app_keys/{app.id}/private"),
                    "service key": vault.open(
                        service.seed_sealed, place=f"service_keys/{service.id}/seed"
                    ),
                    "sealing secret": sealing,
                }
            assert Registry(store).enclave(uuid) is not None
        finally:
            store.close()
        directory = self.project / ".cloister" / "dev"
        (sealed,) = (directory / "objects" / str(uuid)).glob("tls.*")
        image = b"".join(deployment.pcrs[index] for index in (0, 1, 2))
        key = HKDF(SHA256(), 32, image, sealed.name.encode()).derive(sealing)
        content = sealed.read_bytes()
        version, nonce, body = content[1:9], content[9:21], content[21:]
        clear = AESGCM(key).decrypt(nonce, body, uuid.bytes + sealed.name.encode() + version)
        tls = load_der_private_key(cbor2.loads(clear)["key"], None)
        assert isinstance(tls, ec.EllipticCurvePrivateKey)
        return found | {
            "API key": self.api_key.split("_", 2)[2].encode(),
            "clear text": CLEAR.encode(),
            "master key": (directory / "master.key").read_bytes(),
            "TLS key": tls.private_numbers().private_value.to_bytes(32, "big"),
            "variable": MARK.encode(),
        }

    def files(self) -> Iterator[pathlib.Path]:
        """All that was written."""
        yield from (path for path in self.folder.rglob("*") if path.is_file())

    def found_in(self, content: bytes) -> set[str]:
        """Which secrets are in it, in one of the forms in which they could be."""
        return {
            name
            for name, value in self.secrets.items()
            if any(form in content for form in forms(value))
        }


def forms(value: bytes) -> Iterator[bytes]:
    yield value
    yield value.hex().encode()
    yield value.hex().upper().encode()
    # The middle of a value in base64, at each of the three offsets it can have.
    for offset in range(3):
        yield base64.b64encode(bytes(offset) + value)[4:-4]
        yield base64.urlsafe_b64encode(bytes(offset) + value)[4:-4]
    yield repr(value)[2:-1].encode()
    yield ", ".join(str(byte) for byte in value).encode()


def descendants(pid: int) -> Iterator[int]:
    for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield int(child)
            yield from descendants(int(child))


def shown_by_proc(pid: int) -> Iterator[tuple[str, bytes]]:
    """Arguments and environment of the run and of its children, less the user process's own."""
    for each in [pid, *descendants(pid)]:
        place = pathlib.Path(f"/proc/{each}")
        words = (place / "cmdline").read_bytes()
        if words.startswith(b"/hello-enclave"):
            continue  # its variables are in its environment: that is what they are for
        yield f"{each} {words!r}", words + (place / "environ").read_bytes()


def limits_inside(init: int) -> Iterator[tuple[str, str]]:
    """Limits of init and of all that it started."""
    for each in [init, *descendants(init)]:
        place = pathlib.Path(f"/proc/{each}")
        yield (place / "cmdline").read_text(), (place / "limits").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("t18"))


def test_each_file_has_the_secrets_it_must_have_and_no_other(whole: Whole) -> None:
    """The twin is in it: the search finds what is where it has to be."""
    state = pathlib.Path("hello/.cloister/dev")
    expected = {
        state / "master.key": {"master key"},
        state / _local_key.FILE: {"API key"},
    }
    found = {
        path.relative_to(whole.folder): secrets
        for path in whole.files()
        if (secrets := whole.found_in(path.read_bytes()))
    }
    assert found == expected
    for path in expected:
        assert stat.S_IMODE((whole.folder / path).stat().st_mode) == 0o600
    assert stat.S_IMODE((whole.folder / state).stat().st_mode) == 0o700
    names = {path.name for path in whole.files()}
    assert "store.sqlite3" in names
    assert any(path.stat().st_size for path in whole.files() if "logs" in path.parts)


def test_nothing_that_was_said_has_a_secret_but_the_key_that_was_asked_for(whole: Whole) -> None:
    assert whole.found_in("".join(whole.said).encode()) == set()
    assert whole.found_in(whole.console.encode()) == set()


def test_no_host_process_shows_a_secret(whole: Whole) -> None:
    """Arguments and environment can be read by other users or end in crash reports."""
    assert any("cloister.cli.main" in name for name in whole.shown)
    assert len(whole.shown) >= 3, "the launcher and the enclave are seen"
    for name, shown in whole.shown.items():
        assert whole.found_in(shown) == set(), name


def test_t19_nothing_inside_can_dump_its_memory(whole: Whole) -> None:
    assert len(whole.inside) >= 2
    for words, limits in whole.inside.items():
        (line,) = (line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert line.split()[4:6] == ["0", "0"], words


def test_the_search_finds_every_form(whole: Whole) -> None:
    value = hashlib.sha256(b"t18").digest()
    text = b"x" + value
    for written in (text, text.hex().encode(), base64.b64encode(text), repr(text).encode()):
        assert any(form in written for form in forms(value))
    assert whole.secrets.keys() >= {"API key", "TLS key", "app key", "master key", "variable"}
