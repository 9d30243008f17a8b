"""Kernel configurations: what of a ``.config`` matters to an enclave, and what of it was lost.

A configuration is what its maker says; whether a kernel was built from the one beside it is not
known here.
"""

import re
from collections.abc import Mapping

Options = Mapping[str, str]
"""Option and value: ``CONFIG_NSM`` and ``y``. An option that is not set is not in it."""


def read(text: str) -> dict[str, str]:
    """The options of a configuration or a fragment; ``is not set`` and ``=n`` read as ``n``."""
    options = {}
    for line in text[:MAX_CHARACTERS].splitlines():
        if found := _SET.fullmatch(line.strip()):
            options[found[1]] = found[2]
        elif found := _UNSET.fullmatch(line.strip()):
            options[found[1]] = "n"
    return options


def lost(fragment: Options, result: Options) -> list[str]:
    """Options of a fragment that came out otherwise, each with both values, by name."""
    return [
        f"{name}={wanted} (it is {result.get(name, 'n')})"
        for name, wanted in sorted(fragment.items())
        if result.get(name, "n") != wanted
    ]


def of_interest(options: Options) -> dict[str, str]:
    """The options that decide what an enclave can do: ``y``, ``m`` or ``n``, by short name."""
    return {name: options.get(f"CONFIG_{name}", "n") for name in INTERESTING}


def lacks_for_boot(options: Options) -> list[str]:
    """What is not built in and no enclave of any machine starts without."""
    return _not_built_in(options, BOOT)


def lacks_for_nitro(options: Options) -> list[str]:
    """What is not built in and an enclave of AWS Nitro needs."""
    return _not_built_in(options, NITRO)


def lacks_for_egress(options: Options) -> list[str]:
    """What is not built in and egress needs."""
    return _not_built_in(options, EGRESS)


def _not_built_in(options: Options, needed: tuple[str, ...]) -> list[str]:
    return [name for name in needed if options.get(f"CONFIG_{name}", "n") != "y"]


BOOT = ("BLK_DEV_INITRD", "DEVTMPFS", "PROC_FS", "SYSFS", "TMPFS", "UNIX", "INET")
MODULAR = ("VIRTIO_MMIO", "VSOCKETS", "VIRTIO_VSOCKETS", "NSM")
"""What init can load as modules."""
NITRO = (*MODULAR, "VIRTIO_MMIO_CMDLINE_DEVICES")
EGRESS = ("NF_TABLES", "NF_CONNTRACK", "NF_NAT", "NFT_REDIR")
INTERESTING = (*NITRO, *EGRESS, "ACPI", "IPV6", "MODULES", "COREDUMP")
MAX_CHARACTERS = 4 << 20
_SET = re.compile(r"(CONFIG_[A-Z0-9a-z_]+)=(.*)")
_UNSET = re.compile(r"# (CONFIG_[A-Z0-9a-z_]+) is not set")
