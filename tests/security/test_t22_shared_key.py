"""T-22 and T-12, whole: real enclaves on one object store, and what a host can do to it.

Two enclaves of one image that start at once show one TLS key and one certificate; an enclave of
another image on the same store shows another, and cannot open what theirs sealed.
"""

import contextlib
import json
import pathlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.local_run import Somebody, make_project

from cloister.attest import TrustAnchor
from cloister.client import Session
from cloister.errors import MeasurementMismatch

# Not the recorded one; in its place a key, then its certificate.
REPLACED = {"refused": 1, "written": 2}


class Fleet:
    """Enclaves that run together; see :mod:`tests.support.enclave_pair`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.events: list[dict[str, str]] = []
        self.said: dict[str, Any] = {}

    @classmethod
    def start(cls, who: Somebody, *folders: pathlib.Path) -> Self:
        """Starts one enclave a folder and waits for all of them."""
        words = [str(folder) for folder in folders]
        fleet = cls(
            who.popen(words, folders[0], module="tests.support.enclave_pair", stdin=subprocess.PIPE)
        )
        assert fleet.process.stdout is not None
        for line in fleet.process.stdout:
            said = json.loads(line)
            if "urls" in said:
                fleet.said = said
                break
            fleet.events.append(said)
        assert fleet.said, fleet.process.communicate()[1]
        return fleet

    def shown(self, number: int) -> bytes:
        """The certificate that an enclave shows, DER."""
        parts = urlsplit(self.said["urls"][number])
        context = ssl.create_default_context(cafile=self.said["ca_file"])
        address = (str(parts.hostname), int(str(parts.port)))
        with (
            socket.create_connection(address, timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            der = secured.getpeercert(binary_form=True)
        assert der is not None
        return der

    def end(self) -> None:
        """Ends all of them."""
        assert self.process.stdin is not None
        killer = threading.Timer(60, self.process.kill)
        killer.start()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))
        self.process.wait()
        killer.cancel()
        self.process.stdout.close()
        self.process.stderr.close()


@contextlib.contextmanager
def fleet(who: Somebody, *folders: pathlib.Path) -> Iterator[Fleet]:
    running = Fleet.start(who, *folders)
    try:
        yield running
    finally:
        running.end()


@pytest.fixture(scope="module")
def who(tmp_path_factory: pytest.TempPathFactory) -> Somebody:
    return Somebody(home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, who: Somebody) -> pathlib.Path:
    return make_project(tmp_path_factory.mktemp("one"), who)


@pytest.fixture(scope="module")
def other(
    tmp_path_factory: pytest.TempPathFactory, who: Somebody, image: pathlib.Path
) -> pathlib.Path:
    """The same enclave with another image: a byte more in it."""
    folder = pathlib.Path(shutil.copytree(image, tmp_path_factory.mktemp("two") / "hello"))
    with (folder / "hello-enclave").open("ab") as program:
        program.write(b"\0")
    who.run("build", folder=folder)
    return folder


def objects(folder: pathlib.Path) -> dict[str, bytes]:
    kept = (folder / ".cloister" / "dev" / "objects").glob("*/tls.*")
    return {path.name: path.read_bytes() for path in kept if not path.name.endswith("~")}


def key_of(der: bytes) -> bytes:
    done = subprocess.run(
        ["openssl", "x509", "-inform", "DER", "-noout", "-pubkey"],
        input=der,
        capture_output=True,
        check=True,
    )
    return done.stdout


def attested(running: Fleet, number: int, folder: pathlib.Path) -> int:
    """Status of a request to an enclave that must be the image of ``folder``."""
    with Session(
        running.said["urls"][number],
        folder / "enclave.toml",
        trust_anchor=TrustAnchor.dangerous_root(running.said["nsm_root"]),
        ca_file=running.said["ca_file"],
    ) as session:
        return session.get("/", timeout=20).status_code


def warnings(running: Fleet) -> list[str]:
    return [event["message"] for event in running.events if event["event"] == "warning"]


def counted(running: Fleet, name: str) -> dict[str, float]:
    """What the first enclave had counted when it was ready, without what never happened."""
    families = text_string_to_metric_families(running.said["metrics"][0])
    return {
        sample.labels["outcome"]: sample.value
        for family in families
        if family.name == name
        for sample in family.samples
        if sample.value
    }


def test_enclaves_of_one_image_share_a_key_and_another_image_does_not(
    who: Somebody, image: pathlib.Path, other: pathlib.Path
) -> None:
    with fleet(who, image, image, other) as running:
        first, second, third = (running.shown(number) for number in range(3))
        assert first == second, "key and certificate"
        assert key_of(first) != key_of(third)
        kept = objects(image)
        assert len(kept) == 2, "an object for each image"
        # The document binds the key that each shows, and says which image it is.
        for number, folder in ((0, image), (1, image), (2, other)):
            assert attested(running, number, folder) == 401
        with pytest.raises(MeasurementMismatch):
            attested(running, 2, image)
    assert warnings(running) == []

    # A host that stops all of them and starts one again: nothing is made anew.
    with fleet(who, image) as again:
        assert again.shown(0) == first
        assert counted(again, "cloister_sealed_objects") == {"used": 1}
        assert counted(again, "cloister_sealed_object_heads") == {}
    assert warnings(again) == []

    # A host that gives each image the other's object.
    directory = next((image / ".cloister" / "dev" / "objects").glob("*"))
    one, two = sorted(kept)
    (directory / one).write_bytes(kept[two])
    (directory / two).write_bytes(kept[one])
    with fleet(who, image) as swapped:
        assert key_of(swapped.shown(0)) not in {key_of(first), key_of(third)}
        assert counted(swapped, "cloister_sealed_objects") == REPLACED
        # More than twice, where a bundle that does not know of it yet comes in between.
        assert counted(swapped, "cloister_sealed_object_heads")["recorded"] >= 2
    (warning,) = warnings(swapped)
    assert "lost or changed" in warning

    # A host that sets an image back to what was good once.
    newer = objects(image)
    (changed,) = (name for name in newer if newer[name] not in kept.values())
    (directory / changed).write_bytes(kept[changed])
    with fleet(who, image) as rolled_back:
        assert key_of(rolled_back.shown(0)) != key_of(first)
        assert counted(rolled_back, "cloister_sealed_objects") == REPLACED
        # More than twice, where a bundle that does not know of it yet comes in between.
        assert counted(rolled_back, "cloister_sealed_object_heads")["recorded"] >= 2
    assert len(warnings(rolled_back)) == 1
