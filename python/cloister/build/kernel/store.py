"""Kernels that were built or fetched: a folder each, which appears whole or not at all.

``NAME/bzImage``, ``NAME/bzImage.config``, ``NAME/modules/*.ko`` where it needs some, and
``NAME/about.json``. A name says what made the kernel, its version, and the first digits of the
digest of what goes into an image: ``build-6.12.117-1a2b3c4d``. That digest is checked when the
kernel is used. Removing a folder loses nothing but time.

The kernel that ``aws-nitro-enclaves-cli`` installs is listed too, as ``aws``; it is not ours to
keep.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from cloister.build.kernel.bzimage import MAX_BYTES, BzImage
from cloister.errors import CloisterError, MalformedImage, MissingInput, OutputError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A kernel module, as init loads it.

    Args:
        name: Its name, without ``.ko``.
        content: The module, not compressed.
    """

    name: str
    content: bytes = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KernelFiles:
    """The files of a kernel.

    Args:
        image: The bzImage.
        config: Its configuration, ``.config``; ``None``: it is not known.
        cmdline: The command line that its maker gives it; ``None``: ours.
        modules: What init has to load, in its order.
    """

    image: bytes = dataclasses.field(repr=False)
    config: str | None = dataclasses.field(default=None, repr=False)
    cmdline: str | None = None
    modules: tuple[Module, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-384 of all that goes into an image; of a kernel without modules, of its bzImage."""
        found = hashlib.sha384(self.image)
        for module in self.modules:
            found.update(b"\0%s\0" % module.name.encode() + hashlib.sha384(module.content).digest())
        return found.hexdigest()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoredKernel:
    """A kernel that is there.

    Args:
        name: Its name, which ``[kernel] image`` takes.
        kind: ``build``, ``fetch`` or ``aws``.
        path: Its bzImage.
        source: What it was made from, in words: a package and its version.
    """

    name: str
    kind: str
    path: pathlib.Path
    source: str

    def files(self) -> KernelFiles:
        """Reads it.

        Raises:
            MissingInput: A file of it cannot be read.
            MalformedImage: It is not what its name says: it was changed.
        """
        found = read_files(self.path)
        digits = self.name.rpartition("-")[2]
        if self.kind != AWS and not found.digest.startswith(digits):
            raise MalformedImage(
                f"kernel `{self.name}`: its digest is {found.digest[:16]}…: it was changed",
                hint=f"remove `{self.path.parent}` and make it again",
            )
        return found


class KernelStore:
    """The kernels of a user.

    Args:
        folder: Where they are; it need not be there.
        aws: Where ``aws-nitro-enclaves-cli`` has its kernel.
    """

    def __init__(self, folder: pathlib.Path, aws: pathlib.Path | None = None) -> None:
        self.folder = folder
        self._aws = aws if aws is not None else AWS_BLOBS

    def all(self) -> list[StoredKernel]:
        """What is there: the newest first, that of AWS last."""
        found = []
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                if NAME.fullmatch(path.name) and (about := _about(path)) is not None:
                    at = (path / ABOUT).stat().st_mtime_ns
                    found.append((at, path.name, _stored(path, about)))
        kernels = [kernel for *_, kernel in sorted(found, key=lambda one: one[:2], reverse=True)]
        if (self._aws / IMAGE).is_file():
            source = "aws-nitro-enclaves-cli"
            kernels.append(StoredKernel(name=AWS, kind=AWS, path=self._aws / IMAGE, source=source))
        return kernels

    def find(self, name: str) -> StoredKernel:
        """The kernel with this name; ``build`` and ``fetch`` are the newest of their kind.

        Raises:
            MissingInput: There is none.
        """
        for kernel in self.all():
            if name in (kernel.name, kernel.kind):
                return kernel
        raise MissingInput(f"there is no kernel `{name}`", hint=_how_to_get(name))

    def made_of(self, key: str) -> StoredKernel | None:
        """The kernel that was made of the same, and is whole."""
        for kernel in self.all():
            about = None if kernel.kind == AWS else _about(kernel.path.parent)
            if about is not None and about["key"] == key:
                with contextlib.suppress(CloisterError):
                    kernel.files()
                    return kernel
        return None

    def keep(self, kind: str, files: KernelFiles, *, key: str, source: str) -> StoredKernel:
        """Keeps a kernel.

        Args:
            kind: ``build`` or ``fetch``.
            files: The kernel.
            key: What it was made of, as a digest.
            source: The same, in words.

        Raises:
            MalformedImage: It is not a kernel.
            OutputError: It cannot be written.
        """
        version = BzImage.parse(files.image).version
        number = (re.match(r"[0-9]+(?:\.[0-9]+){1,3}", version) or [version[:32]])[0]
        path = self.folder / f"{kind}-{number}-{files.digest[:DIGITS]}"
        about = {"format": FORMAT, "kind": kind, "version": version, "key": key, "source": source}
        contents: dict[str, bytes] = {IMAGE: files.image}
        if files.config is not None:
            contents[f"{IMAGE}.config"] = files.config.encode()
        for module in files.modules:
            contents[f"{MODULES}/{module.name}.ko"] = module.content
        contents[ABOUT] = json.dumps(about, indent=1).encode()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=self.folder) as name:
                for relative, content in contents.items():
                    file = pathlib.Path(name, "whole", relative)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(content)
                if path.exists():
                    path.rename(pathlib.Path(name, "old"))
                pathlib.Path(name, "whole").rename(path)
        except OSError as problem:
            raise OutputError(f"cannot write `{path}`: {problem.strerror}") from problem
        return _stored(path, about)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[pathlib.Path]:
        """A folder to work in that goes at the end, and what earlier, killed work left with it.

        It is below the store, unless that has white space or a colon in its path: the kernel's
        Makefile takes neither, so it is then where temporary files are.

        Raises:
            OutputError: It cannot be made, or another process works here.
        """
        with self._alone():
            for left in self.folder.glob(f"{SCRATCH}*"):
                shutil.rmtree(left, ignore_errors=True)
            place = None if re.search(r"[\s:]", str(self.folder)) else self.folder
            with tempfile.TemporaryDirectory(
                prefix=SCRATCH, dir=place, ignore_cleanup_errors=True
            ) as name:
                yield pathlib.Path(name)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            raise OutputError(f"cannot write into `{self.folder}`: {problem.strerror}") from problem
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputError(
                    f"another `cloister kernel` works in `{self.folder}`",
                    hint="wait until it has ended",
                ) from None
            yield
        finally:
            os.close(lock)


def read_files(image: pathlib.Path) -> KernelFiles:
    """A bzImage with what lies beside it: ``.config``, ``cmdline``, modules that init loads.

    Raises:
        MissingInput: It cannot be read.
        MalformedImage: It is too long.
    """
    folder = image.parent
    modules = []
    for name in MODULE_ORDER:
        for path in (folder / MODULES / f"{name}.ko", folder / f"{name}.ko"):
            if path.is_file():
                modules.append(Module(name=name, content=_read(path)))
                break
    config, cmdline = image.with_name(f"{image.name}.config"), folder / CMDLINE
    return KernelFiles(
        image=_read(image),
        config=_read(config).decode("ascii", "replace") if config.is_file() else None,
        cmdline=" ".join(_read(cmdline).decode("ascii", "replace").split())
        if cmdline.is_file()
        else None,
        modules=tuple(modules),
    )


def _read(path: pathlib.Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as problem:
        raise MissingInput(f"`{path}` cannot be read: {problem.strerror}") from problem
    if len(content) > MAX_BYTES:
        raise MalformedImage(f"`{path}` is longer than {MAX_BYTES} bytes")
    return content


def _about(folder: pathlib.Path) -> dict[str, Any] | None:
    try:
        about = json.loads((folder / ABOUT).read_bytes())
        is_ours = about["format"] == FORMAT and (folder / IMAGE).is_file()
        return about if is_ours and {"kind", "key", "source"} <= about.keys() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _stored(folder: pathlib.Path, about: Mapping[str, Any]) -> StoredKernel:
    return StoredKernel(
        name=folder.name,
        kind=str(about["kind"]),
        path=folder / IMAGE,
        source=str(about["source"]),
    )


def _how_to_get(name: str) -> str:
    if name.startswith(FETCH):
        return "`cloister kernel fetch` fetches one; `cloister kernel list` shows what is there"
    if name == AWS:
        return "install aws-nitro-enclaves-cli, or build one: `cloister kernel build`"
    return "`cloister kernel build` builds one; `cloister kernel list` shows what is there"


BUILD, FETCH, AWS = "build", "fetch", "aws"
IMAGE, CMDLINE, MODULES, ABOUT = "bzImage", "cmdline", "modules", "about.json"
SCRATCH = ".scratch-"
FORMAT = 1
DIGITS = 8
NAME = re.compile(rf"(?:{BUILD}|{FETCH})-[0-9A-Za-z.]{{1,32}}-[0-9a-f]{{{DIGITS}}}")
AWS_BLOBS = pathlib.Path("/usr/share/nitro_enclaves/blobs")
MODULE_ORDER = (
    "virtio_mmio",
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vmw_vsock_virtio_transport",
    "nsm",
)
"""What init loads, in the order in which they need each other (`rust/init/src/modules.rs`)."""
