"""This interpreter and what it imports, for a user who may not read where they are.

A checkout, a virtual environment or Python itself may lie below root's own home. What is open to
everybody is used where it is; the rest is copied.
"""

import dataclasses
import pathlib
import shutil
import sys
import sysconfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Usable:
    """What another user can run.

    Args:
        python: The interpreter.
        paths: Folders it imports from, the standard library apart.
        libraries: Folder of its shared library, when that was copied.
    """

    python: str
    paths: tuple[str, ...]
    libraries: str | None = None


def usable(folder: pathlib.Path) -> Usable:
    """Copies into ``folder`` what is not open to everybody."""
    base = pathlib.Path(sys.base_prefix)
    own = [pathlib.Path(path) for path in sys.path if path]
    imported = [path for path in own if path.is_dir() and not path.is_relative_to(base / "lib")]
    paths = tuple(
        str(path if is_open(path) else _copy_imports(path, folder / f"imports-{number}"))
        for number, path in enumerate(imported)
    )
    executable = pathlib.Path(sys.executable)
    if is_open(executable) and is_open(executable.resolve()):
        return Usable(python=str(executable), paths=paths)
    real = executable.resolve()
    if not is_open(real):
        real = _copy_python(base, real, folder / "python")
    return Usable(python=str(real), paths=paths, libraries=str(real.parents[1] / "lib"))


def is_open(path: pathlib.Path) -> bool:
    """Whether other users can read this file or folder, and enter every folder above it."""
    folders = [path, *path.parents] if path.is_dir() else list(path.parents)
    enterable = all(folder.stat().st_mode & 0o001 for folder in folders)
    return enterable and bool(path.stat().st_mode & 0o004)


def _copy_imports(path: pathlib.Path, copy: pathlib.Path) -> pathlib.Path:
    """A whole folder of packages, or the one package of a checkout's folder."""
    if (path / "cloister").is_dir():
        shutil.copytree(path / "cloister", copy / "cloister", ignore=_NOT_USED)
    elif (path / ".git").exists():
        copy.mkdir()
    else:
        shutil.copytree(path, copy, ignore=_NOT_USED)
    return copy


def _copy_python(base: pathlib.Path, real: pathlib.Path, copy: pathlib.Path) -> pathlib.Path:
    version = f"python{sysconfig.get_python_version()}"
    (copy / "bin").mkdir(parents=True)
    shutil.copy2(real, copy / "bin" / real.name)
    shutil.copytree(base / "lib" / version, copy / "lib" / version, ignore=_NOT_USED_OF_PYTHON)
    for library in (base / "lib").glob("libpython*.so*"):
        shutil.copy2(library, copy / "lib" / library.name)
    return copy / "bin" / real.name


_NOT_USED = shutil.ignore_patterns("__pycache__", "tests", "pip", "mypy*", "ruff*", "maturin*")
_NOT_USED_OF_PYTHON = shutil.ignore_patterns(
    "__pycache__", "test", "tests", "site-packages", "config-*", "idlelib", "tkinter", "ensurepip"
)
