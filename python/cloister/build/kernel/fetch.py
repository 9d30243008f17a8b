"""Takes the kernel of Debian's cloud images, with the modules that an enclave needs of it.

vsock, the NSM and virtio over memory are modules there; init loads them from ramdisk 0. It has no
``VIRTIO_MMIO_CMDLINE_DEVICES``, so it starts under QEMU, which has ACPI, and not on AWS Nitro.
"""

import lzma
import pathlib
import re
from collections.abc import Iterable

from cloister.build import cache as caching
from cloister.build.builders import child
from cloister.build.kernel import apt, modinfo
from cloister.build.kernel.compile import DOWNLOADS, Made
from cloister.build.kernel.store import FETCH, MODULE_ORDER, KernelFiles, KernelStore, Module
from cloister.build.progress import Progress
from cloister.errors import BuilderUnusable, BuildFailed, MalformedImage


def fetch_kernel(store: KernelStore, progress: Progress, *, is_cached: bool = True) -> Made:
    """Downloads the kernel, or finds the one that was downloaded.

    Args:
        store: Where it goes.
        progress: Told about each stage.
        is_cached: One of the same package is taken.

    Raises:
        BuilderUnusable: There is no apt, or it knows no such kernel.
        BuildFailed: apt or dpkg ended with an error, or the package lacks something.
        MalformedImage: A module is none, or needs one that init does not load.
        OutputError: It cannot be written, or another process works there.
    """
    package = apt.locate(versioned())
    key = caching.key({"format": FORMAT, "package": package.sha256, "modules": MODULE_ORDER})
    if is_cached and (found := store.made_of(key)) is not None:
        return Made(kernel=found, is_new=False)
    with store.scratch() as folder:
        root = folder / "package"
        apt.unpacked(package, store.folder / DOWNLOADS, root, progress)
        with progress.stage("kernel kept, its modules unpacked"):
            files = taken(root)
            source = f"{package.name} {package.version}"
            kernel = store.keep(FETCH, files, key=key, source=source)
    return Made(kernel=kernel, is_new=True)


def versioned() -> str:
    """Name of the newest package with a cloud kernel of :data:`SERIES`.

    Raises:
        BuilderUnusable: apt knows none.
    """
    for meta in METAS:
        try:
            found = newest(_words(child.ask(["apt-cache", "depends", "--important", meta])))
        except child.NoAnswer:
            continue
        if found is not None:
            return found
    # The meta package of an older Debian means an older kernel; newer ones are there beside it.
    try:
        found = newest(_words(child.ask(["apt-cache", "pkgnames", f"linux-image-{SERIES}."])))
    except child.NoAnswer as problem:
        raise BuilderUnusable(f"`apt-cache` does not work here: {problem}") from None
    if found is None:
        raise BuilderUnusable(
            f"apt knows no `linux-image-{SERIES}…-cloud-amd64`",
            hint="as root: apt-get update; Debian 12 and later have it. Elsewhere: `cloister kernel"
            " build --source DIR|TARBALL`",
        )
    return found


def newest(names: Iterable[str]) -> str | None:
    """The package of the newest version among these names; ``None``: there is none."""
    found = [(_numbers(name), name) for name in names if _PACKAGE.fullmatch(name)]
    return max(found)[1] if found else None


def taken(root: pathlib.Path) -> KernelFiles:
    """Kernel, configuration and modules of an unpacked package.

    Raises:
        BuildFailed: One of them is not in it.
        MalformedImage: A module is none, or needs one that init does not load.
    """
    image = _only(root, "boot/vmlinuz-*")
    config = _only(root, "boot/config-*").read_text("ascii", "replace")
    builtin = {
        _module_name(line)
        for file in root.glob("**/lib/modules/*/modules.builtin")
        for line in file.read_text("ascii", "replace").splitlines()
    }
    files = {
        _module_name(path.name): path
        for path in root.glob("**/lib/modules/*/kernel/**/*.ko*")
        if _module_name(path.name) in MODULE_ORDER
    }
    modules: list[Module] = []
    for name in MODULE_ORDER:
        if name in builtin:
            continue
        if name not in files:
            raise BuildFailed(f"the package has no module `{name}`", status=1)
        content = unpacked(files[name])
        there = builtin | {module.name for module in modules}
        if missing := [need for need in modinfo.needs(content, name) if need not in there]:
            raise MalformedImage(
                f"module `{name}` needs {', '.join(missing)}, which init does not load before it"
            )
        modules.append(Module(name=name, content=content))
    return KernelFiles(image=image.read_bytes(), config=config, modules=tuple(modules))


def unpacked(path: pathlib.Path) -> bytes:
    """A module, which may be compressed with xz.

    Raises:
        MalformedImage: It is compressed otherwise, is damaged, or is longer than
            :data:`MAX_MODULE_BYTES`.
    """
    content = path.read_bytes()
    if path.suffix == ".xz":
        unpacking = lzma.LZMADecompressor(memlimit=MAX_MEMORY)
        try:
            content = unpacking.decompress(content, MAX_MODULE_BYTES + 1)
        except lzma.LZMAError as problem:
            raise MalformedImage(f"module `{path.name}`: {problem}") from None
        if not unpacking.eof and len(content) <= MAX_MODULE_BYTES:
            raise MalformedImage(f"module `{path.name}` is cut short")
    elif path.suffix != ".ko":
        raise MalformedImage(f"module `{path.name}`: expected .ko or .ko.xz")
    if len(content) > MAX_MODULE_BYTES:
        raise MalformedImage(f"module `{path.name}` is longer than {MAX_MODULE_BYTES} bytes")
    return content


def _only(root: pathlib.Path, pattern: str) -> pathlib.Path:
    found = sorted(root.glob(pattern))
    if len(found) != 1:
        raise BuildFailed(f"the package has {len(found)} files `{pattern}`, expected one", status=1)
    return found[0]


def _module_name(path: str) -> str:
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def _words(answer: str) -> list[str]:
    return answer.split()


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"[0-9]+", name.removesuffix("-cloud-amd64"))))


SERIES = "6.12"
METAS = ("linux-image-cloud-amd64", f"linux-image-{SERIES}-cloud-amd64")
FORMAT = 1
MAX_MODULE_BYTES = 32 << 20
MAX_MEMORY = 128 << 20
_PACKAGE = re.compile(rf"linux-image-{re.escape(SERIES)}\.[0-9]+[0-9A-Za-z.+~-]*-cloud-amd64")
