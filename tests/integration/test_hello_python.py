"""examples/hello-python: an ordinary Dockerfile becomes an enclave that clients talk to.

It is built by Docker and by buildah, on a Debian that is made here, with wheels that pip downloaded
once: no registry is asked while it builds. That what its README promises holds is tested here: the
three commands, the same image again, the same image by each builder.
"""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Iterator

import pytest
from tests.support.base_images import PYTHON
from tests.support.container_daemon import Daemon, Store
from tests.support.guide import blocks, commands
from tests.support.local_run import ROOT, LocalRun, Somebody, running
from tests.support.project import Project
from tests.support.wheels import wheels

from cloister import crypto
from cloister.attest import TrustAnchor
from cloister.build import cpio, open_eif
from cloister.client import Session

EXAMPLE = ROOT / "examples" / "hello-python"
CARD = {"number": "4242 4242 4242 4242", "expires": "12/49"}
GOOD = {"valid": True, "problems": [], "brand": "visa", "masked": "************4242"}
COMMANDS = [["init", "cards", "--healthcheck", "/health"], ["build"], ["run"]]
JSON = ("--header", "content-type: application/json", "--data")
SAME = "the same: every section and every file"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Builder:
    """A builder, and where the base image is.

    Args:
        name: What ``--builder`` takes.
        environment: What makes it use the store of the tests.
    """

    name: str
    environment: dict[str, str]

    def build(self, project: Project, *words: str) -> dict[str, str]:
        """The PCRs of what it builds from the very beginning."""
        base = ("--build-arg", f"BASE={PYTHON}")
        fixed = ("build", "--builder", self.name, "--no-cache", *base)
        pcrs: dict[str, str] = project.json(*fixed, *words, **self.environment)["pcrs"]
        return pcrs


@pytest.fixture(scope="module")
def who(tmp_path_factory: pytest.TempPathFactory) -> Somebody:
    return Somebody(home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def initialized(tmp_path_factory: pytest.TempPathFactory, who: Somebody) -> pathlib.Path:
    """The first of the three commands, in a copy of the example."""
    folder = tmp_path_factory.mktemp("initialized") / "cards"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("*.whl", "__pycache__"))
    shutil.copytree(wheels(EXAMPLE / "requirements.txt"), folder / "wheels", dirs_exist_ok=True)
    who.run(*COMMANDS[0], folder=folder)
    return folder


class Builds:
    """A copy of the project for each builder, built when it is first asked for."""

    def __init__(
        self, request: pytest.FixtureRequest, initialized: pathlib.Path, folder: pathlib.Path
    ) -> None:
        self._request = request
        self._initialized = initialized
        self._folder = folder
        self._built: dict[str, Project] = {}

    def builders(self, name: str) -> list[Builder]:
        """The builder; several when there are several docker clients: classic and BuildKit."""
        if name == "docker":
            daemon: Daemon = self._request.getfixturevalue("docker_daemon")
            self._request.getfixturevalue("python_in_docker")
            return [Builder(name=name, environment=one) for one in daemon.environments()]
        store: Store = self._request.getfixturevalue("container_store")
        if name not in store.builders():
            pytest.skip(f"`{name}` is not there: install {name}")
        self._request.getfixturevalue("python_in_store")
        return [Builder(name=name, environment=store.variables)]

    def of(self, name: str) -> Project:
        """The second command."""
        if name not in self._built:
            builder = self.builders(name)[0]
            project = Project.of(self._folder / name)
            shutil.copytree(self._initialized, project.folder)
            builder.build(project)
            self._built[name] = project
        return self._built[name]


@pytest.fixture(scope="module")
def builds(
    request: pytest.FixtureRequest,
    initialized: pathlib.Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Builds]:
    folder = tmp_path_factory.mktemp("builds")
    yield Builds(request, initialized, folder)
    # Images of 200 MB, which pytest would keep for three runs.
    shutil.rmtree(folder)


@pytest.fixture(scope="module", params=["docker", "buildah"])
def name(request: pytest.FixtureRequest) -> str:
    """The builders whose image runs here."""
    return str(request.param)


@pytest.fixture(scope="module")
def built(builds: Builds, name: str) -> Project:
    return builds.of(name)


@pytest.fixture(scope="module")
def enclave(built: Project, who: Somebody) -> Iterator[LocalRun]:
    """The third command."""
    with running(who, built.folder) as run:
        yield run


def session(enclave: LocalRun, built: Project, **changes: str) -> Session:
    return Session(
        enclave.said["url"],
        built.toml,
        trust_anchor=TrustAnchor.dangerous_root(enclave.said["nsm_root"]),
        ca_file=enclave.said["ca_file"],
        **({"api_key": enclave.said["api_key"]} | changes),
    )


def encrypted(enclave: LocalRun, clear: dict[str, object]) -> dict[str, str]:
    sealed: dict[str, str] = crypto.encrypt(clear, bytes.fromhex(enclave.said["app_public_key"]))
    assert all(value.startswith("ev:") for value in sealed.values())
    return sealed


def test_the_readme_has_the_commands_that_are_tested_here() -> None:
    page = blocks(EXAMPLE / "README.md")
    shell = [block for block in page if block.kind == "sh"]
    assert [words[1:] for words in commands(shell[0].text)] == COMMANDS
    assert json.loads(shell[1].shown or "") == GOOD


def test_an_attesting_client_has_an_encrypted_card_checked(
    enclave: LocalRun, built: Project
) -> None:
    with session(enclave, built) as client:
        for number in (CARD["number"], 4242424242424242):
            sealed = encrypted(enclave, CARD | {"number": number})
            answer = client.post("/cards", json=sealed, timeout=20)
            assert (answer.status_code, answer.json()) == (200, GOOD)
        wrong = encrypted(enclave, {"number": 4242424242424241, "expires": "01/20"})
        answer = client.post("/cards", json=wrong, timeout=20)
    assert answer.status_code == 200
    assert answer.json() == GOOD | {
        "valid": False,
        "problems": ["the check digit of the number is wrong", "the card is expired"],
        "masked": "************4241",
    }


def test_curl_has_an_encrypted_card_checked(enclave: LocalRun, built: Project) -> None:
    token = built.run("encrypt", "--type", "string", "4242424242424242")[0].strip()
    body = f'{{"number": "{token}", "expires": "12/49"}}'
    status, answer = enclave.curl("/cards", *JSON, body)
    assert status == 200, answer
    assert '"masked":"************4242"' in answer


def test_who_has_no_key_is_refused(enclave: LocalRun, built: Project) -> None:
    assert enclave.curl("/health")[0] == 200
    for key in (None, "ck_nobody_" + "A" * 43):
        assert enclave.curl("/cards", *JSON, "{}", key=key)[0] == 401
    with session(enclave, built, api_key="ck_nobody_" + "A" * 43) as client:
        sealed = encrypted(enclave, dict(CARD))
        assert client.post("/cards", json=sealed, timeout=20).status_code == 401


@pytest.mark.parametrize(
    ("path", "options", "status", "message"),
    [
        ("/nowhere", (), 404, "Not Found"),
        ("/cards", (), 405, "Method Not Allowed"),
        ("/cards", (*JSON, "{"), 400, "not a JSON document"),
        ("/cards", (*JSON, '{"number": true}'), 400, "`number` has to be"),
        ("/cards", ("--data", "number=1"), 415, "application/json"),
    ],
)
def test_a_mistake_is_answered_by_the_service(
    enclave: LocalRun, path: str, options: tuple[str, ...], status: int, message: str
) -> None:
    found, body = enclave.curl(path, *options)
    assert found == status, body
    assert message in body


def test_it_runs_as_the_user_of_the_image(enclave: LocalRun) -> None:
    assert enclave.curl("/health")[0] == 200
    found = [user for folder in pathlib.Path("/proc").glob("[0-9]*") if (user := user_of(folder))]
    assert found
    assert set(found) == {FIRST_SYSTEM_USER}


def user_of(process: pathlib.Path) -> int | None:
    """The user that the service is in its enclave; ``None``: it is another process."""
    try:
        if b"\0app:service\0" not in (process / "cmdline").read_bytes():
            return None
        inside, outside, _ = map(int, (process / "uid_map").read_text().split())
        return process.stat().st_uid - outside + inside
    except OSError:
        return None


def test_building_again_from_the_beginning_gives_the_same_image(
    builds: Builds, built: Project, name: str
) -> None:
    toml = built.toml.read_text()
    builds.builders(name)[0].build(built, "--output", "again.eif")
    assert built.toml.read_text() == toml
    assert SAME in built.run("describe", "enclave.eif", "--diff", "again.eif")[0]


@pytest.mark.parametrize("other", ["docker", "buildah", "podman"])
def test_every_builder_gives_the_same_image(builds: Builds, other: str) -> None:
    """What differs is in no register: a label of buildah. Docker's clients may be two builders."""
    expected, found = builds.of("docker"), builds.of(other)
    must_be_same(expected.eif, found.eif, found)
    for number, builder in enumerate(builds.builders(other)[1:]):
        builder.build(found, "--output", f"client-{number}.eif")
        must_be_same(expected.eif, found.folder / f"client-{number}.eif", found)
    bases = [line for line in record(found) if line.startswith("# base: ")]
    assert len(bases) == 1
    assert bases[0].startswith(f"# base: {PYTHON}")


def must_be_same(expected: pathlib.Path, found: pathlib.Path, project: Project) -> None:
    """The files and settings of the image, which are what a builder makes: PCR2."""
    measured = [project.json("describe", str(path))["pcrs"]["PCR2"] for path in (expected, found)]
    if measured[0] != measured[1]:
        told, _ = project.run("describe", str(expected), "--diff", str(found), status=1)
        pytest.fail(f"another image: {told}")


def record(project: Project) -> list[str]:
    return (project.folder / "enclave.Dockerfile").read_text().splitlines()


def test_what_changes_from_build_to_build_is_not_in_the_image(builds: Builds) -> None:
    with open_eif(builds.of("docker").eif) as image:
        entries = {entry.path.decode(): entry for entry in cpio.read(image.ramdisks[1].payload)}
    names = {name.removeprefix("rootfs/") for name in entries}
    assert {"app/app.py", "venv/bin/uvicorn", "usr/bin/python3"} <= names
    assert not [name for name in names if name.startswith(CHANGING)]
    assert not [name for name in names if name.startswith("venv/") and "/pip" in name]
    compiled = {
        name: bytes(entry.data[4:8]) for name, entry in entries.items() if is_compiled(name)
    }
    ours = {flags for name, flags in compiled.items() if name.startswith("rootfs/venv/")}
    assert ours == {UNCHECKED_HASH}
    assert set(compiled.values()) == {UNCHECKED_HASH, CHECKED_HASH}
    lines = bytes(entries["rootfs/etc/shadow"].data).split(b"\n")
    (user,) = [line.split(b":") for line in lines if line.startswith(b"cards:")]
    assert user[2] == b"", "the day on which it was made"


def is_compiled(name: str) -> bool:
    return name.endswith(".pyc")


FIRST_SYSTEM_USER = 999
CHANGING = ("build/", "etc/machine-id", "var/cache/apt/", "var/cache/ldconfig/aux-cache")
CHANGING += ("var/lib/apt/lists/", "var/log/")
# PEP 552: the second word of a compiled file; zero would mean that a time follows.
UNCHECKED_HASH, CHECKED_HASH = b"\1\0\0\0", b"\3\0\0\0"
