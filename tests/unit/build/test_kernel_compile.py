"""Building a kernel, with a source whose make does no more than copy one."""

import contextlib
import pathlib
import re
import subprocess
from collections.abc import Iterator

import pytest
from tests.support import kernels

from cloister.build.kernel import KernelStore, facts, tools
from cloister.build.kernel.compile import built, compile_kernel, fragment
from cloister.build.progress import Advance, Silent
from cloister.errors import BuilderUnusable, BuildFailed, MissingInput


class Told:
    """Keeps what a build tells."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.lines: list[str] = []

    @contextlib.contextmanager
    def stage(self, label: str, *, size: int | None = None) -> Iterator[Advance]:  # noqa: ARG002
        """A stage."""
        self.stages.append(label)
        yield lambda _: None

    def tell(self, line: str) -> None:
        """A line."""
        self.lines.append(line)


class Interrupting(Told):
    """Ctrl-C at the first line."""

    def tell(self, line: str) -> None:
        """A line."""
        raise KeyboardInterrupt(line)


@pytest.fixture
def store(tmp_path: pathlib.Path) -> KernelStore:
    return KernelStore(tmp_path / "kernels", aws=tmp_path / "aws")


@pytest.fixture
def tarball(tmp_path: pathlib.Path) -> pathlib.Path:
    """A source in a tarball; where a kernel cannot be compiled, not even this one can."""
    try:
        tools.check()
    except BuilderUnusable as problem:
        pytest.skip(problem.message)
    folder = kernels.source(tmp_path / "src" / "linux-6.12")
    path = tmp_path / "linux-6.12.tar.xz"
    subprocess.run(["tar", "-cJf", path, "-C", folder.parent, folder.name], check=True)
    return path


def test_the_fragment_has_what_the_design_names() -> None:
    options = facts.read(fragment())
    on = "NSM VIRTIO_VSOCKETS ACPI X86_MPPARSE VIRTIO_MMIO_CMDLINE_DEVICES NETFILTER NF_TABLES"
    on += " NF_CONNTRACK NF_NAT NFT_REDIR NF_TABLES_IPV4 NF_TABLES_IPV6 SECCOMP_FILTER"
    for name in on.split():
        assert options[f"CONFIG_{name}"] == "y", name
    for name in ("COREDUMP", "ELF_CORE", "PCI", "LOCALVERSION_AUTO"):
        assert options[f"CONFIG_{name}"] == "n", name
    assert not facts.lacks_for_nitro(options)
    assert not facts.lacks_for_boot(options)
    assert not facts.lacks_for_egress(options)
    named = re.findall(r"CONFIG_[A-Z0-9_]+", fragment())
    assert len(named) == len(set(named)), "an option stands in it twice"


def test_a_kernel_is_configured_and_compiled(tmp_path: pathlib.Path) -> None:
    source, told = kernels.source(tmp_path / "src"), Told()
    before = sorted(path.name for path in source.rglob("*"))
    files = built(source, tmp_path / "out", told, jobs=3)
    assert files.image == kernels.bzimage()
    assert files.config is not None
    assert facts.lost(facts.read(fragment()), facts.read(files.config)) == []
    assert told.stages == ["kernel configured", "kernel compiled, 3 at once"]
    assert told.lines == ["main.c: warning: strange"]
    assert sorted(path.name for path in source.rglob("*")) == before
    lines = (tmp_path / "out" / "environment").read_text().splitlines()
    names = {line.partition("=")[0] for line in lines}
    made_by_make = {"MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "MAKE_TERMOUT", "O", "PWD"}
    assert names - made_by_make - {"_", "SHLVL", "OLDPWD", "MAKE_TERMERR"} == {
        *("PATH", "LC_ALL", "ARCH", "LOCALVERSION", "KBUILD_BUILD_TIMESTAMP"),
        *("KBUILD_BUILD_USER", "KBUILD_BUILD_HOST", "KBUILD_BUILD_VERSION"),
    }


def test_an_option_that_is_lost_is_named(tmp_path: pathlib.Path) -> None:
    source = kernels.source(tmp_path / "src", loses="CONFIG_NSM=")
    with pytest.raises(BuildFailed, match=r"CONFIG_NSM=y \(it is n\)"):
        built(source, tmp_path / "out", Silent())


def test_a_compiler_that_fails_is_quoted(tmp_path: pathlib.Path) -> None:
    source = kernels.source(tmp_path / "src", status=3)
    with pytest.raises(BuildFailed, match="strange") as failed:
        built(source, tmp_path / "out", Silent())
    assert failed.value.exit_status == 2  # make's own


def test_the_same_source_is_compiled_once(tarball: pathlib.Path, store: KernelStore) -> None:
    first = compile_kernel(store, Silent(), source=tarball)
    assert first.is_new
    assert first.kernel.name.startswith("build-6.12.117-")
    assert tarball.name in first.kernel.source
    again = compile_kernel(store, Silent(), source=tarball)
    assert (again.kernel, again.is_new) == (first.kernel, False)
    forced = compile_kernel(store, Silent(), source=tarball, is_cached=False)
    assert (forced.kernel, forced.is_new) == (first.kernel, True)
    assert len(store.all()) == 1


def test_a_folder_may_change_so_it_is_compiled_again(
    tmp_path: pathlib.Path, tarball: pathlib.Path, store: KernelStore
) -> None:
    folder = tmp_path / "src" / "linux-6.12"
    for _ in range(2):
        assert compile_kernel(store, Silent(), source=folder).is_new
    # Its kernel is not taken for that of a tarball either.
    assert compile_kernel(store, Silent(), source=tarball).is_new


def test_what_is_cut_short_leaves_nothing(tarball: pathlib.Path, store: KernelStore) -> None:
    with pytest.raises(KeyboardInterrupt):
        compile_kernel(store, Interrupting(), source=tarball)
    assert [path.name for path in store.folder.iterdir()] == [".lock"]
    assert compile_kernel(store, Silent(), source=tarball).is_new


@pytest.mark.parametrize("folder", ["kernels", "with a space", "with:colon"])
def test_work_is_done_where_the_makefile_of_a_kernel_can(
    tmp_path: pathlib.Path, folder: str
) -> None:
    """It takes neither white space nor a colon in a path."""
    store = KernelStore(tmp_path / folder)
    with store.scratch() as work:
        assert not re.search(r"[\s:]", str(work))
        assert (work.parent == store.folder) is (folder == "kernels")
        (work / "something").touch()
    assert not work.exists()


def test_what_is_no_source_is_refused(
    tmp_path: pathlib.Path, tarball: pathlib.Path, store: KernelStore
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no tarball")
    for path, kind in (
        (tmp_path / "empty", MissingInput),
        (tmp_path / "absent", MissingInput),
        (tmp_path / "file", BuildFailed),
    ):
        with pytest.raises(kind):
            compile_kernel(store, Silent(), source=path)
    assert store.all() == []
    assert compile_kernel(store, Silent(), source=tarball).is_new


def test_missing_tools_are_named_with_their_packages() -> None:
    assert tools.packages(["xz", "libelf.h", "ld"]) == ["binutils", "libelf-dev", "xz-utils"]
