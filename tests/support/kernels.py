"""Kernels made by hand: a setup header, a version text and nothing that would boot."""

import pathlib
import struct

from cloister.build.kernel.choose import OPTION_MODULE
from cloister.build.kernel.facts import BOOT, EGRESS, NITRO

VERSION = "6.12.117-enclave"
BANNER = f"{VERSION} (cloister@cloister) #1 SMP"
SECTORS = 2
SETUP_BYTES = (1 + SECTORS) * 512
BANNER_AT = 0x300


def bzimage(banner: bytes = BANNER.encode(), system: bytes = b"system" * 32) -> bytes:
    """A kernel with this version text; ``system`` is the code that would run."""
    system += bytes(-len(system) % 16)
    file = bytearray(SETUP_BYTES) + system
    file[0x1F1] = SECTORS
    struct.pack_into("<I", file, 0x1F4, len(system) // 16)
    struct.pack_into("<H", file, 0x1FE, 0xAA55)
    file[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", file, 0x206, 0x20F)
    struct.pack_into("<H", file, 0x20E, BANNER_AT - 0x200)
    file[0x211] = 1
    struct.pack_into("<I", file, 0x238, 2047)
    struct.pack_into("<I", file, 0x260, 1 << 24)
    file[BANNER_AT : BANNER_AT + len(banner) + 1] = banner + b"\0"
    return bytes(file)


def configuration(*, without: tuple[str, ...] = (), modules: tuple[str, ...] = ()) -> str:
    """A configuration with everything that an enclave needs, less some, and some as modules."""
    lines = [
        f"CONFIG_{name}={'m' if name in modules else 'y'}"
        for name in (*BOOT, *NITRO, *EGRESS)
        if name not in without
    ]
    lines += [f"# CONFIG_{name} is not set" for name in without]
    return "\n".join(lines) + "\n"


def write(folder: pathlib.Path, image: bytes | None = None, config: str | None = None) -> None:
    """``bzImage`` and ``bzImage.config`` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bzImage").write_bytes(bzimage() if image is None else image)
    text = configuration() if config is None else config
    (folder / "bzImage.config").write_text(text)


MODULAR = tuple(OPTION_MODULE)


def module(depends: str = "", *, text: bytes | None = None) -> bytes:
    """An ELF file with a section ``.modinfo`` that names these modules, separated by commas."""
    said = f"license=GPL\0depends={depends}\0name=x\0".encode() if text is None else text
    names = b"\0.modinfo\0.shstrtab\0"
    names_at, table_at = 64 + len(said), 64 + len(said) + len(names)
    head = bytearray(64)
    head[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", head, 0x28, table_at)
    struct.pack_into("<HHH", head, 0x3A, 64, 3, 2)
    sections = bytearray(3 * 64)
    for index, (name, at, size) in enumerate(((1, 64, len(said)), (10, names_at, len(names))), 1):
        struct.pack_into("<I", sections, 64 * index, name)
        struct.pack_into("<QQ", sections, 64 * index + 0x18, at, size)
    return bytes(head) + said + names + bytes(sections)


def package(
    root: pathlib.Path, modules: dict[str, bytes], *, builtin: tuple[str, ...] = ()
) -> None:
    """A kernel package as dpkg unpacks it; ``.ko.xz`` is compressed already."""
    (root / "boot").mkdir(parents=True)
    (root / "boot" / "vmlinuz-6.12.117+x").write_bytes(bzimage())
    config = configuration(without=("VIRTIO_MMIO_CMDLINE_DEVICES",), modules=MODULAR)
    (root / "boot" / "config-6.12.117+x").write_text(config)
    folder = root / "usr" / "lib" / "modules" / "6.12.117+x"
    (folder / "kernel" / "net").mkdir(parents=True)
    for name, content in modules.items():
        (folder / "kernel" / "net" / name).write_bytes(content)
    lines = "".join(f"kernel/drivers/{name}.ko\n" for name in builtin)
    (folder / "modules.builtin").write_text(lines)


def source(folder: pathlib.Path, *, loses: str = "", status: int = 0) -> pathlib.Path:
    """A source tree whose make copies a kernel made by hand into its place.

    Args:
        folder: Where; it is made.
        loses: An option that its ``olddefconfig`` takes away.
        status: What compiling ends with.
    """
    (folder / "scripts" / "kconfig").mkdir(parents=True)
    merge = folder / "scripts" / "kconfig" / "merge_config.sh"
    merge.write_text('#!/bin/sh\ncat "$5" >> "$4"\n')
    merge.chmod(0o755)
    (folder / "image").write_bytes(bzimage())
    lose = f"sed -i /{loses}/d $(O)/.config" if loses else "true"
    (folder / "Makefile").write_text(
        "tinyconfig:\n\techo CONFIG_OTHER=y > $(O)/.config\n"
        f"olddefconfig:\n\t{lose}\n"
        "bzImage:\n"
        '\t@echo "  CC      init/main.o"\n'
        '\t@echo "main.c: warning: strange"\n'
        "\t@mkdir -p $(O)/arch/x86/boot && env > $(O)/environment\n"
        f"\t@exit {status}\n"
        "\t@cp $(CURDIR)/image $(O)/arch/x86/boot/bzImage\n"
    )
    return folder
