"""The fixtures of ``cloister.testing``, in a project of somebody who has no rights.

pytest runs as a process of its own, by a user with an empty home, and finds the fixtures by itself.
"""

import dataclasses
import importlib.metadata
import os
import pathlib
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator

import pytest
from tests.support.local_run import Somebody

CONFTEST = """
import pytest
from cloister import testing

SHOP = testing.handler(lambda request: {"path": request.path, "card": request.json()["card"]})

@pytest.fixture(scope="session")
def cloister_app():
    return SHOP

@pytest.fixture(scope="session")
def cloister_settings():
    return {"pcrs": {"PCR0": "12" * 48}}
"""

SHOP = """
import os
import time

import pytest
from cloister.errors import MeasurementMismatch
from cloister.testing import Fault

@pytest.fixture
def begun():
    return time.monotonic()

def test_first_answer(begun, cloister_enclave, capsys):
    with cloister_enclave.session() as session:
        card = cloister_enclave.encrypt("4242")
        assert session.post("/buy", json={"card": card}).json() == {"path": "/buy", "card": "4242"}
    with capsys.disabled():
        print(f"first attested answer after {(time.monotonic() - begun) * 1000:.0f} ms")

def test_settings_are_ours(cloister_enclave):
    assert cloister_enclave.measurements.registers[0] == b"\\x12" * 48

def test_files_are_where_temporary_ones_go(cloister_enclave):
    assert str(cloister_enclave.ca_file.parent.parent) == os.environ["TMPDIR"]

def test_each_has_its_own(cloister_enclave, shared_cloister_enclave, make_cloister_enclave):
    third = make_cloister_enclave(pcrs={"PCR0": "34" * 48})
    urls = {one.url for one in (cloister_enclave, shared_cloister_enclave, third)}
    assert len(urls) == 3
    with third.session() as session:
        assert session.get("/echo").json()["path"] == "/echo"

URLS = []

@pytest.mark.parametrize("number", range(3))
def test_one_is_shared(number, shared_cloister_enclave):
    URLS.append(shared_cloister_enclave.url)
    assert len(set(URLS)) == 1
    with shared_cloister_enclave.session() as session:
        assert session.post("/", json={"card": number}).json()["card"] == number

def test_our_errors(cloister_enclave):
    with (
        cloister_enclave.failing(Fault.OTHER_CODE),
        cloister_enclave.session() as session,
        pytest.raises(MeasurementMismatch),
    ):
        session.post("/buy", json={"card": "4242"})

def test_they_end_with_the_test(make_cloister_enclave, request):
    made = make_cloister_enclave()
    request.addfinalizer(lambda: None)
    global LAST
    LAST = made

def test_it_ended():
    with pytest.raises(Exception, match="not started"):
        LAST.url
"""

PLAIN = """
import sys

def test_nothing_is_imported():
    assert "cloister.pytest_plugin" in sys.modules
    heavy = {"cloister.testing", "cloister._native", "requests", "uvicorn", "cryptography"}
    assert not heavy & set(sys.modules)
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Project:
    """A folder with tests, who runs them, and where their temporary files are."""

    who: Somebody
    folder: pathlib.Path
    temporary: pathlib.Path

    def pytest(self, *words: str) -> str:
        """Runs the tests; they must succeed."""
        with self.who.popen(
            [*words, "-p", "no:cacheprovider"], self.folder, module="pytest"
        ) as process:
            out, err = process.communicate(timeout=200)
        assert process.returncode == 0, (out, err)
        return out


@pytest.fixture(scope="module")
def somebody() -> Iterator[Somebody]:
    """Somebody with an empty home and no rights, in a folder that is open to everybody."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cloister-test-"))
    folder.chmod(0o755)
    if os.geteuid() == 0:
        yield Somebody.unprivileged(folder)
    else:
        (folder / "home").mkdir()
        yield Somebody(home=folder / "home")
    shutil.rmtree(folder)


@pytest.fixture
def project(somebody: Somebody) -> Iterator[Project]:
    folder = pathlib.Path(tempfile.mkdtemp(dir=somebody.home.parent))
    folder.chmod(0o755)
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    temporary = folder / "tmp"
    temporary.mkdir()
    if somebody.uid is not None:
        os.chown(temporary, somebody.uid, somebody.uid)
    who = dataclasses.replace(somebody, more={**somebody.more, "TMPDIR": str(temporary)})
    yield Project(who=who, folder=folder, temporary=temporary)
    shutil.rmtree(folder)


def test_pytest_finds_it_by_itself() -> None:
    found = importlib.metadata.entry_points(group="pytest11", name="cloister")
    assert {one.value for one in found} == {"cloister.pytest_plugin"}


def test_a_project_uses_the_fixtures(project: Project, record: Callable[[str], None]) -> None:
    """Imports included; how long without them is in ``tests/unit/testing/test_enclave.py``."""
    (project.folder / "conftest.py").write_text(CONFTEST)
    (project.folder / "test_shop.py").write_text(SHOP)
    begun = time.monotonic()
    said = project.pytest("-q")
    assert "10 passed" in said
    found = re.search(r"first attested answer after (\d+) ms", said)
    assert found is not None, said
    record(
        f"from the fixture's request, imports included: {found[1]} ms; "
        f"10 tests: {time.monotonic() - begun:.1f} s"
    )
    assert int(found[1]) < 5000
    # Nothing of the home was touched, and nothing was left.
    assert list(project.who.home.iterdir()) == []
    assert list(project.temporary.iterdir()) == []


def test_workers_do_not_meet(project: Project) -> None:
    """Under pytest-xdist each process has enclaves of its own."""
    (project.folder / "conftest.py").write_text(CONFTEST)
    (project.folder / "test_shop.py").write_text(SHOP)
    (project.folder / "test_shop_again.py").write_text(SHOP)
    said = project.pytest("-q", "-n", "3", "--dist", "loadfile")
    assert "20 passed" in said


def test_a_project_that_asks_for_none_pays_for_nothing(project: Project) -> None:
    (project.folder / "test_plain.py").write_text(PLAIN)
    project.pytest("-q")


def test_the_fixtures_say_what_they_are(project: Project) -> None:
    (project.folder / "test_plain.py").write_text(PLAIN)
    said = project.pytest("--fixtures", "-q")
    for name in (
        "cloister_app",
        "cloister_enclave",
        "cloister_settings",
        "make_cloister_enclave",
        "shared_cloister_enclave",
    ):
        assert re.search(rf"^{name}\b.*\n +\w", said, re.MULTILINE), name
