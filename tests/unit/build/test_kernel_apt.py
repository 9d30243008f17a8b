"""``cloister kernel fetch`` with programs in apt's place: what is asked, kept, and refused."""

import hashlib
import lzma
import os
import pathlib

import pytest
from tests.support import kernels
from tests.support.project import Project

from cloister.build.kernel.store import MODULE_ORDER

NAME = "linux-image-6.12.117+deb12-cloud-amd64"
FILE = f"{NAME}_6.12.117-1_amd64.deb"
APT_GET = """\
#!/bin/sh
echo "apt-get $*" >> {log}
case "$*" in
*--print-uris*) echo "'scheme://host/{file}' {file} 9 SHA256:{sha256}" ;;
*) printf %s "$(cat {served})" > {file} ;;
esac
"""
APT_CACHE = """\
#!/bin/sh
case "$*" in
*depends*linux-image-cloud-amd64) echo "  Depends: linux-image-6.1.0-50-cloud-amd64" ;;
*depends*) exit 100 ;;
*) echo "{name}" ;;
esac
"""


class Archive:
    """Programs that answer as apt and dpkg do, and what they were asked."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.log, self.served = folder / "log", folder / "served"
        self._programs, tree = folder / "programs", folder / "tree"
        modules = {
            f"{name}.ko.xz": lzma.compress(kernels.module(), preset=0) for name in MODULE_ORDER
        }
        kernels.package(tree, modules)
        self.served.write_text("a package")
        self._programs.mkdir()
        sha256 = hashlib.sha256(b"a package").hexdigest()
        texts = {
            "apt-get": APT_GET.format(log=self.log, file=FILE, sha256=sha256, served=self.served),
            "apt-cache": APT_CACHE.format(name=NAME),
            "dpkg-deb": f'#!/bin/sh\ncp -r {tree} "$3"\n',
        }
        for name, text in texts.items():
            (self._programs / name).write_text(text)
            (self._programs / name).chmod(0o755)
        self.environment = {
            "PATH": f"{self._programs}:{os.environ['PATH']}",
            "CLOISTER_HOME": str(folder / "home"),
        }

    def without(self, name: str) -> None:
        """Takes a program away, and the system's with it."""
        (self._programs / name).unlink()
        for tool in ("env", "cp", "cat"):
            (self._programs / tool).symlink_to(f"/usr/bin/{tool}")
        self.environment["PATH"] = str(self._programs)

    def downloads(self) -> int:
        """How often a package was downloaded."""
        lines = self.log.read_text().splitlines()
        return sum("--print-uris" not in line for line in lines)


@pytest.fixture
def project(tmp_path: pathlib.Path) -> Project:
    (tmp_path / "project").mkdir()
    return Project(tmp_path / "project")


@pytest.fixture
def archive(tmp_path: pathlib.Path) -> Archive:
    return Archive(tmp_path)


def test_the_newest_package_is_fetched_once(project: Project, archive: Archive) -> None:
    made = project.json("kernel", "fetch", **archive.environment)
    assert made["source"] == f"{NAME} 6.12.117-1"
    assert made["modules"] == list(MODULE_ORDER)
    assert made["runners"] == ["qemu", "sandbox"]
    assert (made["is_new"], archive.downloads()) == (True, 1)
    again = project.json("kernel", "fetch", **archive.environment)
    assert again == made | {"is_new": False}
    # The package is there still, so making the kernel again downloads nothing.
    forced = project.json("kernel", "fetch", "--no-cache", **archive.environment)
    assert forced == made
    assert archive.downloads() == 1
    log = archive.log.read_text()
    assert f"download {NAME}=6.12.117-1" in log.replace(" -o APT::Sandbox::User=root", "")


def test_a_package_that_is_not_the_listed_one_is_refused(
    project: Project, archive: Archive
) -> None:
    archive.served.write_text("another")
    out = project.json("kernel", "fetch", status=1, **archive.environment)
    assert "not what apt's lists say" in out["error"]["message"]
    folder = pathlib.Path(archive.environment["CLOISTER_HOME"]) / "kernels"
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "downloads"]
    assert list((folder / "downloads").iterdir()) == []
    archive.served.write_text("a package")
    assert project.json("kernel", "fetch", **archive.environment)["is_new"]


@pytest.mark.parametrize("name", ["apt-get", "dpkg-deb", "apt-cache"])
def test_without_apt_another_way_is_named(project: Project, archive: Archive, name: str) -> None:
    archive.without(name)
    out = project.json("kernel", "fetch", status=69, **archive.environment)
    assert f"`{name}" in out["error"]["message"]
