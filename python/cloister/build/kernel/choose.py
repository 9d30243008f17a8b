"""Turns ``[kernel]`` of ``enclave.toml`` into what goes into an image, and says whom it is for.

``image`` is a name that ``cloister kernel list`` shows, one of the words ``build``, ``fetch`` and
``aws``, or else a path. Nothing is built or downloaded here: an image of minutes and of bytes from
elsewhere is asked for by a command of its own.
"""

import dataclasses
import hashlib
import re
from typing import Any

from cloister import config
from cloister.build.kernel import facts
from cloister.build.kernel.bzimage import BzImage
from cloister.build.kernel.store import (
    AWS,
    BUILD,
    FETCH,
    NAME,
    KernelFiles,
    KernelStore,
    Module,
    read_files,
)
from cloister.errors import ConfigError, MissingInput


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChosenKernel:
    """What goes into an image.

    Args:
        name: What it is called: a name of the list, or ``file``.
        image: The kernel section.
        cmdline: The command line section.
        version: Release of the kernel, as its header says.
        modules: What init loads, in its order.
        runners: Whom the image is for: of ``nitro``, ``qemu`` and ``sandbox``.
        warnings: What the user should know.
    """

    name: str
    image: bytes = dataclasses.field(repr=False)
    cmdline: bytes
    version: str
    modules: tuple[Module, ...]
    runners: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of the two sections."""
        return len(self.image) + len(self.cmdline)

    def described(self) -> dict[str, Any]:
        """The same for metadata and for keys of caches: everything but the bytes."""
        return {
            "name": self.name,
            "version": self.version,
            "size": len(self.image),
            "sha384": hashlib.sha384(self.image).hexdigest(),
            "cmdline": self.cmdline.decode("ascii"),
            "modules": {
                module.name: hashlib.sha384(module.content).hexdigest() for module in self.modules
            },
        }


def choose_kernel(toml: config.EnclaveToml, store: KernelStore) -> ChosenKernel | None:
    """The kernel of an image; ``None``: it has none, and is for the sandbox alone.

    Args:
        toml: The checked ``enclave.toml``.
        store: The kernels that there are.

    Raises:
        MissingInput: There is no such kernel.
        MalformedImage: It is not a kernel, or was changed.
        ConfigError: No enclave starts with it, or its command line is too long.
    """
    wanted = toml.kernel.image
    if wanted is None:
        return None
    if NAMES.fullmatch(wanted):
        try:
            stored = store.find(wanted)
        except MissingInput as problem:
            raise MissingInput(f"{_where(toml)}: {problem.message}", hint=problem.hint) from None
        return chosen(toml, stored.files(), stored.name)
    path = toml.beside(wanted)
    if not path.is_file():
        raise MissingInput(
            f"{_where(toml)}: there is no kernel `{path}`",
            hint='image = "build" takes the one that `cloister kernel build` makes',
        )
    return chosen(toml, read_files(path), FILE)


def chosen(toml: config.EnclaveToml, files: KernelFiles, name: str) -> ChosenKernel:
    """The same for files that were read."""
    head = BzImage.parse(files.image, "[kernel] image")
    cmdline = (
        toml.kernel.cmdline or files.cmdline or default_cmdline(with_modules=bool(files.modules))
    )
    if not cmdline.isascii() or not cmdline.isprintable():
        raise ConfigError(f"{_where(toml)}: the command line that comes with it is not ASCII")
    if len(cmdline) > head.max_cmdline:
        raise ConfigError(
            f"{_where(toml)}: the command line is {len(cmdline)} bytes long, this kernel takes"
            f" {head.max_cmdline}"
        )
    if files.modules and "nomodule" in cmdline.split():
        raise ConfigError(
            f"{_where(toml)}: `nomodule` is on the command line, and this kernel needs modules",
            hint="take it off, or take a kernel without modules: `cloister kernel build`",
        )
    runners, warnings = judged(toml, files)
    return ChosenKernel(
        name=name,
        image=files.image,
        cmdline=cmdline.encode("ascii"),
        version=head.version,
        modules=files.modules,
        runners=runners,
        warnings=tuple(warnings),
    )


def judged(toml: config.EnclaveToml, files: KernelFiles) -> tuple[tuple[str, ...], list[str]]:
    """Whom an image with this kernel is for, and what to warn of.

    Raises:
        ConfigError: Something is not built in that every enclave needs.
    """
    if files.config is None:
        return RUNNERS, [
            "nothing of the kernel was checked: there is no configuration beside it, NAME.config"
        ]
    options = facts.read(files.config)
    if lacking := facts.lacks_for_boot(options):
        raise ConfigError(
            f"{_where(toml)}: the kernel lacks {', '.join(lacking)}: no enclave starts with it",
            hint="`cloister kernel build` makes one that has what is needed",
        )
    runners, warnings = runners_of(files), []
    if "qemu" not in runners:
        lacks = ", ".join(unloadable(options, files))
        warnings.append(f"the kernel lacks {lacks}: the image is for the sandbox alone")
    elif "nitro" not in runners:
        lacks = ", ".join(_without_modules(facts.lacks_for_nitro(options), files))
        warnings.append(
            f"the kernel lacks {lacks}: the image is not for AWS Nitro; `cloister kernel build`"
            " makes one that is"
        )
    if toml.egress.enabled and (lacking := facts.lacks_for_egress(options)):
        warnings.append(
            f"`[egress]` is on and the kernel lacks {', '.join(lacking)}: with it nothing leaves"
            " the enclave; `cloister kernel build` makes one that has what it takes"
        )
    return runners, warnings


def runners_of(files: KernelFiles) -> tuple[str, ...]:
    """Whom an image with this kernel is for, as its configuration says."""
    if files.config is None:
        return RUNNERS
    options = facts.read(files.config)
    if facts.lacks_for_boot(options) or unloadable(options, files):
        return ("sandbox",)
    lacking = _without_modules(facts.lacks_for_nitro(options), files)
    return tuple(runner for runner in RUNNERS if runner != "nitro" or not lacking)


def unloadable(options: facts.Options, files: KernelFiles) -> list[str]:
    """What is neither built in nor comes as a module with the kernel."""
    lacking = [name for name in facts.MODULAR if options.get(f"CONFIG_{name}", "n") != "y"]
    return _without_modules(lacking, files)


def default_cmdline(*, with_modules: bool) -> str:
    """The command line of an image whose ``enclave.toml`` says none."""
    words = DEFAULT_CMDLINE.split()
    return " ".join(word for word in words if not with_modules or word != "nomodules")


def _without_modules(names: list[str], files: KernelFiles) -> list[str]:
    loaded = {module.name for module in files.modules}
    return [name for name in names if OPTION_MODULE.get(name) not in loaded]


def _where(toml: config.EnclaveToml) -> str:
    return f"{toml.path}: `[kernel]`" if toml.path is not None else "`[kernel]`"


RUNNERS = ("nitro", "qemu", "sandbox")
FILE = "file"
NAMES = re.compile(rf"{AWS}|{BUILD}|{FETCH}|{NAME.pattern}")
"""What is a name; everything else is a path. A file with such a name is ``./build``."""
DEFAULT_CMDLINE = "reboot=k panic=30 pci=off nomodules console=ttyS0 random.trust_cpu=on"
"""That of aws-nitro-enclaves-cli, ``blobs/x86_64/cmdline``, less what its init alone reads.

`nomodules` is no word of the kernel's, which has `nomodule`: it reaches init, which passes it over.
"""
OPTION_MODULE = {
    "VIRTIO_MMIO": "virtio_mmio",
    "VSOCKETS": "vsock",
    "VIRTIO_VSOCKETS": "vmw_vsock_virtio_transport",
    "NSM": "nsm",
}
