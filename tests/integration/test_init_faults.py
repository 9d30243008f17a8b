"""``cloister init`` where it fails half-way: what is left goes on as one enclave."""

import json
import pathlib
import subprocess
import uuid
from collections.abc import Iterator

import pytest
from tests.support.local_run import Somebody
from tests.support.platform_server import PlatformServer, serving
from tests.support.small_disk import SmallDisk

from cloister.config import load

PAGE = 4096
MAX_PAGES = 12


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformServer]:
    who = Somebody(home=tmp_path_factory.mktemp("home"))
    with serving(who, tmp_path_factory.mktemp("platform") / "state") as server:
        yield server


def registered(platform: PlatformServer) -> list[str]:
    app = uuid.UUID(platform.made["app_uuid"])
    return [one["uuid"] for one in platform.owner().enclaves(app) if one["name"] == "hello"]


def test_an_init_on_a_full_disk_goes_on_with_the_same_enclave(
    platform: PlatformServer, tmp_path: pathlib.Path
) -> None:
    """Each try registered another enclave, before there was room for a file that names it.

    The disk grows page by page, so that every write of the command fails once.
    """
    folder = tmp_path / "project"
    folder.mkdir()
    who = platform.asking()
    failures = after_registration = 0
    with SmallDisk(folder, PAGE) as disk:
        inside = disk.path(folder)
        ignore = inside / ".cloister" / ".gitignore"
        for pages in range(1, MAX_PAGES):
            size = f"remount,size={pages * PAGE}"
            subprocess.run(disk.inside("mount", "-o", size, str(folder)), check=True)
            words = ("init", "hello", "--config", str(folder / "enclave.toml"))
            done = subprocess.run(
                disk.inside(who.python, "-m", "cloister.cli.main", *words),
                env=who.environment(),
                check=False,
                capture_output=True,
                text=True,
                timeout=120,
            )
            if done.returncode == 0:
                break
            assert (done.returncode, "cannot write" in done.stderr) == (73, True), done.stderr
            failures += 1
            after_registration += len(registered(platform))
            assert not (inside / "enclave.toml").exists()
            # As long as there are keys, they are kept out of repositories.
            assert not (inside / ".cloister" / "signing").exists() or ignore.read_text() == "*\n"
        made = load(inside / "enclave.toml")
        assert registered(platform) == [str(made.uuid)]
        assert ignore.read_text() == "*\n"
        assert not (inside / ".cloister" / "init.toml").exists()
    # Else nothing was tried: before anything, and between registration and file.
    assert failures >= 3
    assert after_registration >= 1


def test_an_init_whose_answer_is_lost_goes_on_with_the_same_enclave(
    platform: PlatformServer, tmp_path: pathlib.Path
) -> None:
    before = registered(platform)
    noted = tmp_path / ".cloister" / "init.toml"
    noted.parent.mkdir()
    noted.write_text(f'version = 1\nname = "hello"\nuuid = "{uuid.uuid4()}"\ndebug = false\n')
    begun = load(noted).uuid
    app = uuid.UUID(platform.made["app_uuid"])
    platform.owner().add_enclave(app, "hello", uuid=begun)
    out, _ = platform.asking().run("init", "hello", "--json", folder=tmp_path)
    assert json.loads(out)["uuid"] == str(begun)
    assert len(registered(platform)) == len(before) + 1
    assert not noted.exists()


def test_a_begun_enclave_that_was_deleted_is_in_nobodys_way(
    platform: PlatformServer, tmp_path: pathlib.Path
) -> None:
    app, begun = uuid.UUID(platform.made["app_uuid"]), uuid.uuid4()
    platform.owner().add_enclave(app, "hello", uuid=begun)
    platform.owner().delete_enclave(begun)
    noted = tmp_path / ".cloister" / "init.toml"
    noted.parent.mkdir()
    noted.write_text(f'version = 1\nname = "hello"\nuuid = "{begun}"\ndebug = false\n')
    _, said = platform.asking().run("init", "hello", folder=tmp_path, status=78)
    assert f"`{begun}` was deleted" in said
    platform.asking().run("init", "hello", folder=tmp_path)
    assert str(load(tmp_path / "enclave.toml").uuid) in registered(platform)


def test_another_enclave_does_not_go_on_with_what_was_begun(
    platform: PlatformServer, tmp_path: pathlib.Path
) -> None:
    noted = tmp_path / ".cloister" / "init.toml"
    noted.parent.mkdir()
    begun = uuid.uuid4()
    noted.write_text(f'version = 1\nname = "hello"\nuuid = "{begun}"\ndebug = false\n')
    out, _ = platform.asking().run("init", "other", "--json", folder=tmp_path)
    assert json.loads(out)["uuid"] != str(begun)
