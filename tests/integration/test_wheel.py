"""The wheel, in a virtual environment of its own outside the repository: the main job works there.

``make wheel`` (or ``make test``) builds it first. Its dependencies are taken from the environment
that runs the tests, so that nothing is fetched; the package itself is the wheel's.
"""

import configparser
import pathlib
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel() -> pathlib.Path:
    found = sorted((ROOT / "dist").glob("cloister-*.whl"))
    assert len(found) == 1, "`make wheel` leaves exactly one wheel in dist/"
    return found[0]


@pytest.fixture(scope="module")
def python(wheel: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The interpreter of an environment that holds the wheel and borrows its dependencies."""
    folder = tmp_path_factory.mktemp("wheel") / "environment"
    venv.create(folder, with_pip=False)
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = site / "site-packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*install, "--no-deps", "--no-index", "--target", str(site), str(wheel)], check=True
    )
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin" / "python"


def test_it_is_abi3_and_carries_the_static_binaries(wheel: pathlib.Path) -> None:
    assert "-cp311-abi3-" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for name in ("_bin/cloister-enclave", "_bin/cloister-sandbox", "_native.abi3.so", "py.typed"):
        assert f"cloister/{name}" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_pytest_finds_its_fixtures(wheel: pathlib.Path) -> None:
    declared = configparser.ConfigParser()
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [
            name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")
        ]
        declared.read_string(archive.read(name).decode())
        assert "cloister/pytest_plugin.py" in archive.namelist()
    assert dict(declared["pytest11"]) == {"cloister": "cloister.pytest_plugin"}


def test_the_package_is_the_wheels(python: pathlib.Path, tmp_path: pathlib.Path) -> None:
    said = subprocess.run(
        [python, "-c", "import cloister; print(cloister.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip().startswith(str(python.parents[1]))


def test_the_main_job_works_outside_the_repository(
    python: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    done = subprocess.run(
        [python, ROOT / "examples" / "demo.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "demo: all steps done" in done.stdout
    refused = [line for line in done.stdout.splitlines() if "refused" in line]
    assert len(refused) == 3
