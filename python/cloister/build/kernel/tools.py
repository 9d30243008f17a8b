"""What compiling a kernel takes of a machine, and how to get what is missing."""

import shutil
from collections.abc import Iterable

from cloister.build.builders import child
from cloister.build.image_config import DEFAULT_PATH
from cloister.errors import BuilderUnusable


def check() -> None:
    """Looks whether everything is there.

    Raises:
        BuilderUnusable: Something is not; all of it is named, with the packages that have it.
    """
    missing = [tool for tool in PACKAGES if shutil.which(tool, path=DEFAULT_PATH) is None]
    if "gcc" not in missing:
        missing += [header for header in HEADERS if not _has_header(header)]
    if missing:
        raise BuilderUnusable(
            f"a kernel cannot be compiled here without {', '.join(missing)}",
            hint=f"as root: apt-get install {' '.join(packages(missing))}",
        )


def packages(missing: Iterable[str]) -> list[str]:
    """Packages of Debian that have these programs and headers."""
    return sorted({(PACKAGES | HEADERS)[name] for name in missing})


def compiler() -> str:
    """Which compiler and linker it is: another one makes another kernel.

    Raises:
        BuilderUnusable: They do not say.
    """
    said = []
    for tool in ("gcc", "ld"):
        try:
            said.append(child.ask([*CLEAN, tool, "--version"]).splitlines()[0])
        except (child.NoAnswer, IndexError) as problem:
            raise BuilderUnusable(f"`{tool} --version`: {problem}") from None
    return ", ".join(said)


def _has_header(name: str) -> bool:
    try:
        child.ask(
            [*CLEAN, "gcc", "-E", "-include", name, "-x", "c", "/dev/null", "-o", "/dev/null"]
        )
    except child.NoAnswer:
        return False
    return True


CLEAN = ("env", "-i", f"PATH={DEFAULT_PATH}", "LC_ALL=C")
"""Nothing of the user's environment: `ARCH`, `CROSS_COMPILE` or `KCFLAGS` would change a kernel."""
PACKAGES = {
    "bc": "bc",
    "bison": "bison",
    "flex": "flex",
    "gcc": "gcc",
    "gzip": "gzip",
    "ld": "binutils",
    "make": "make",
    "perl": "perl-base",
    "tar": "tar",
    "xz": "xz-utils",
}
HEADERS = {"libelf.h": "libelf-dev", "stdlib.h": "libc6-dev"}
