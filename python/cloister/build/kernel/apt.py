"""Packages of Debian, through its own client: nothing is installed, and nobody need be root.

apt knows where packages are and checks who signed the list that their digests are in. What was
downloaded stays in a folder and is taken again while its digest is the one that apt names.
"""

import dataclasses
import hashlib
import os
import pathlib
import re
import shutil

from cloister.build.builders import child
from cloister.build.growth import watched
from cloister.build.progress import Progress
from cloister.errors import BuilderUnusable, BuildFailed, OutputError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package that apt can download.

    Args:
        name: Its name.
        version: Its version.
        file: Name of its file.
        size: Length of the file, in bytes.
        sha256: Digest of the file, in hexadecimal.
    """

    name: str
    version: str
    file: str
    size: int
    sha256: str


def locate(name: str) -> Package:
    """The package as apt would download it.

    Raises:
        BuilderUnusable: There is no apt, or it does not know the package.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise BuilderUnusable(
                f"`{tool}` is not there: packages of Debian cannot be downloaded here",
                hint="on another system: `cloister kernel build --source DIR|TARBALL`",
            )
    try:
        answer = child.ask(["apt-get", "download", "--print-uris", name])
    except child.NoAnswer as problem:
        raise BuilderUnusable(
            f"apt offers no package `{name}`: {problem}",
            hint="as root: apt-get update; Debian 12 and later have it. Elsewhere: `cloister kernel"
            " build --source DIR|TARBALL`",
        ) from None
    package = parse(name, answer)
    if package is None:
        raise BuilderUnusable(f"apt does not say where `{name}` is, with its SHA-256")
    return package


def parse(name: str, answer: str) -> Package | None:
    """The package in what ``apt-get download --print-uris`` says: place, file, size, digest."""
    for line in answer.splitlines():
        if found := _LINE.fullmatch(line.strip()):
            file, size, sha256 = found.groups()
            version = file.split("_")[1].replace("%3a", ":")
            return Package(name=name, version=version, file=file, size=int(size), sha256=sha256)
    return None


def unpacked(
    package: Package, downloads: pathlib.Path, into: pathlib.Path, progress: Progress
) -> None:
    """Downloads a package, if it is not there already, and unpacks its files.

    Args:
        package: The package.
        downloads: Where it stays.
        into: A folder that is made.
        progress: Told about both.

    Raises:
        BuildFailed: apt or dpkg ended with an error, or what came is something else.
        OutputError: It cannot be written.
    """
    kept = downloads / package.file
    label = f"package `{package.name}` {package.version}"
    if not _is_right(kept, package):
        _download(package, downloads, into.with_name(f"{into.name}.download"), label, progress)
    with progress.stage(f"{label}, unpacked"):
        child.check(["dpkg-deb", "-x", str(kept), str(into)], f"`dpkg-deb -x {package.file}`")


def _download(
    package: Package,
    downloads: pathlib.Path,
    work: pathlib.Path,
    label: str,
    progress: Progress,
) -> None:
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        work.mkdir()
    except OSError as problem:
        raise OutputError(f"cannot write into `{downloads}`: {problem.strerror}") from problem
    command = ["env", f"--chdir={work}", "LC_ALL=C", "apt-get", "download"]
    if os.geteuid() == 0:
        # apt would become a user who may not write here, and warn when it cannot.
        command += ["-o", "APT::Sandbox::User=root"]
    with (
        progress.stage(f"{label}, downloaded", size=package.size) as advanced,
        watched(work, advanced),
    ):
        child.check([*command, f"{package.name}={package.version}"], "`apt-get download`")
    came = work / package.file
    if not _is_right(came, package):
        raise BuildFailed(f"`{package.file}` is not what apt's lists say", status=1)
    try:
        for old in downloads.glob(f"{package.name}_*.deb"):
            old.unlink()
        came.replace(downloads / package.file)
    except OSError as problem:
        raise OutputError(f"cannot write into `{downloads}`: {problem.strerror}") from problem


def _is_right(path: pathlib.Path, package: Package) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == package.sha256
    except OSError:
        return False


_LINE = re.compile(
    r"'[^']+' ([A-Za-z0-9.+~%-]+_[A-Za-z0-9.+~%-]+_[a-z0-9]+\.deb) ([0-9]{1,12})"
    r" SHA256:([0-9a-f]{64})"
)
