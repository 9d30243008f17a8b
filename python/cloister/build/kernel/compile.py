"""Compiles the kernel of an enclave: one source, one configuration, one compiler, the same bytes.

The configuration is :data:`FRAGMENT` over the kernel's own ``tinyconfig``. Nothing of the user's
environment reaches the compiler, the source is not written to, and what is built lies in a folder
that goes at the end, whatever the end is.
"""

import contextlib
import dataclasses
import hashlib
import pathlib
import re
import shutil
from collections.abc import Callable
from importlib import resources

from cloister.build import cache as caching
from cloister.build.builders import child
from cloister.build.kernel import apt, facts, tools
from cloister.build.kernel.store import BUILD, KernelFiles, KernelStore, StoredKernel
from cloister.build.progress import Progress
from cloister.errors import BuildFailed, MissingInput


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A kernel that was asked for.

    Args:
        kernel: The kernel.
        is_new: It was not there already.
    """

    kernel: StoredKernel
    is_new: bool


def compile_kernel(
    store: KernelStore,
    progress: Progress,
    *,
    source: pathlib.Path | None = None,
    jobs: int = 1,
    is_cached: bool = True,
) -> Made:
    """Builds the kernel of an enclave, or finds the one that was built of the same.

    Args:
        store: Where it goes.
        progress: Told about each stage.
        source: Folder or tarball of another kernel source; ``None``: Debian's.
        jobs: Compilers at once.
        is_cached: One that was built of the same is taken.

    Raises:
        BuilderUnusable: A tool is missing, or apt does not have the source.
        MissingInput: There is no such source, or it is none of a kernel.
        BuildFailed: A step ended with an error, or an option of the configuration was lost.
        OutputError: It cannot be written, or another process works there.
    """
    tools.check()
    origin = _Origin.of(source)
    compiler = tools.compiler()
    key = caching.key(
        {
            "format": FORMAT,
            "source": origin.identity,
            "config": fragment(),
            "compiler": compiler,
        }
    )
    if is_cached and origin.identity is not None and (found := store.made_of(key)) is not None:
        return Made(kernel=found, is_new=False)
    with store.scratch() as folder:
        tree = origin.tree(folder, store.folder / DOWNLOADS, progress)
        files = built(tree, folder / "out", progress, jobs=jobs)
        # A folder that is somebody's to change gives no key that another build would find.
        kept_as = key if origin.identity is not None else ""
        with progress.stage("kernel kept"):
            said = f"{origin.said}; {compiler}"
            kernel = store.keep(BUILD, files, key=kept_as, source=said)
        # 90 000 files: on a busy disk it is the user's time too.
        with progress.stage("source and build folder removed"):
            for part in folder.iterdir():
                shutil.rmtree(part, ignore_errors=True)
    return Made(kernel=kernel, is_new=True)


def built(
    source: pathlib.Path, out: pathlib.Path, progress: Progress, *, jobs: int = 1
) -> KernelFiles:
    """Configures and compiles a source tree into a folder that is made.

    Raises:
        BuildFailed: A step ended with an error, or an option of the configuration was lost.
    """
    out.mkdir()
    config, wanted = out / ".config", out / "enclave.config"
    wanted.write_text(fragment())
    make = [*ENVIRONMENT, "make", "-C", str(source), f"O={out}"]
    merge = [str(source / MERGE), "-m", "-O", str(out), str(config), str(wanted)]
    with progress.stage("kernel configured"):
        child.check([*make, "tinyconfig"], "`make tinyconfig`")
        child.check([*ENVIRONMENT[:1], f"--chdir={out}", *ENVIRONMENT[1:], *merge], f"`{MERGE}`")
        child.check([*make, "olddefconfig"], "`make olddefconfig`")
    text = config.read_text()
    if lost := facts.lost(facts.read(fragment()), facts.read(text)):
        raise BuildFailed(
            f"this source does not take every option of the configuration: {', '.join(lost)}",
            status=1,
            hint="the configuration is for Linux 6.12",
        )
    with progress.stage(f"kernel compiled, {jobs} at once"):
        ended = child.run([*make, f"-j{jobs}", TARGET], _unusual(progress.tell))
    if ended.status:
        raise child.failure(f"`make {TARGET}`", ended)
    return KernelFiles(image=(out / IMAGE).read_bytes(), config=text)


def fragment() -> str:
    """The configuration, as it travels with this package."""
    return (resources.files("cloister.build.kernel") / FRAGMENT).read_text()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Origin:
    """Where a source comes from.

    Args:
        said: What the user is told.
        identity: What names its bytes; ``None``: nothing.
        package: The package that it is in.
        path: Folder or tarball that it is in.
    """

    said: str
    identity: str | None
    package: apt.Package | None = None
    path: pathlib.Path | None = None

    @classmethod
    def of(cls, path: pathlib.Path | None) -> "_Origin":
        if path is None:
            package = apt.locate(PACKAGE)
            said = f"{package.name} {package.version}"
            return cls(said=said, identity=f"deb:{package.sha256}", package=package)
        path = path.absolute()
        if path.is_dir():
            _check_tree(path)
            return cls(said=f"folder {path.name}", identity=None, path=path)
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as problem:
            raise MissingInput(
                f"--source: `{path}` cannot be read: {problem.strerror}",
                hint="a folder or a tarball with the source of Linux 6.12",
            ) from problem
        return cls(said=f"{path.name} sha256:{digest}", identity=f"tar:{digest}", path=path)

    def tree(
        self, folder: pathlib.Path, downloads: pathlib.Path, progress: Progress
    ) -> pathlib.Path:
        """The source, unpacked below ``folder`` unless it is a folder already."""
        if self.path is not None and self.path.is_dir():
            return self.path
        tarball = self.path
        if self.package is not None:
            apt.unpacked(self.package, downloads, folder / "package", progress)
            tarballs = sorted((folder / "package" / "usr" / "src").glob("linux-source-*.tar.*"))
            if len(tarballs) != 1:
                raise BuildFailed(f"`{self.package.file}` has no source tarball", status=1)
            (tarball,) = tarballs
        into = folder / "source"
        into.mkdir()
        with progress.stage("kernel source unpacked"):
            child.check(
                [*tools.CLEAN, "tar", "-xf", str(tarball), "-C", str(into), "--no-same-owner"],
                f"`tar -xf {tarball.name if tarball else ''}`",
            )
        with contextlib.suppress(ValueError):
            (into,) = into.iterdir()
        _check_tree(into)
        return into


def _check_tree(path: pathlib.Path) -> None:
    if not (path / MERGE).is_file():
        raise MissingInput(
            f"`{path}` has no `{MERGE}`: it is not the source of a kernel",
            hint="--source takes a folder or a tarball with the source of Linux 6.12",
        )


def _unusual(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Tells what is no ``  CC  file.o``: there are thousands of those, and they say nothing."""

    def line(text: str) -> None:
        if not _USUAL.match(text):
            tell(text)

    return line


PACKAGE = "linux-source-6.12"
FRAGMENT = "enclave.config"
DOWNLOADS = "downloads"
FORMAT = 1
TARGET = "bzImage"
IMAGE = "arch/x86/boot/bzImage"
MERGE = "scripts/kconfig/merge_config.sh"
ENVIRONMENT = (
    *tools.CLEAN,
    "ARCH=x86_64",
    "LOCALVERSION=",
    "KBUILD_BUILD_TIMESTAMP=1970-01-01 00:00:00 UTC",
    "KBUILD_BUILD_USER=cloister",
    "KBUILD_BUILD_HOST=cloister",
    "KBUILD_BUILD_VERSION=1",
)
"""``ARCH``: `tinyconfig` is otherwise that of 32 bits, and what 64 bits add has its defaults.
What goes into the version text is fixed (``Documentation/kbuild/reproducible-builds.rst``); an
empty ``LOCALVERSION`` keeps the state of a git checkout out of it (``scripts/setlocalversion``)."""
_USUAL = re.compile(r"  [A-Z][A-Z0-9_+/-]* +\S|make(?:\[[0-9]+\])?: |Kernel: ")
