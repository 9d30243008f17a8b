"""How much memory an enclave needs: too little of it loses files without a word."""

from cloister import config
from cloister.config.setting import as_size
from cloister.errors import ConfigError


def memory_needed(ramdisks: int, *, kernel: int = 0) -> int:
    """Least memory of an enclave, in bytes, whole MiB.

    The ramdisks are in memory packed and unpacked, and the tmpfs they are unpacked into is limited
    to half of it: four times as much, kernel included, which is AWS's own rule, and
    :data:`BASE_MEMORY` at least, with :data:`KERNEL_MEMORY` more where a kernel of its own runs.

    Args:
        ramdisks: Their size together, in bytes.
        kernel: Size of kernel and command line, in bytes; 0: there is none.
    """
    base = BASE_MEMORY + (KERNEL_MEMORY if kernel else 0)
    whole = -(-max(4 * (ramdisks + kernel), base) // MIB)
    return whole * MIB


def check_memory(toml: config.EnclaveToml, needed: int) -> None:
    """Refuses an image whose enclave gets less than it needs, in bytes.

    Raises:
        ConfigError: It does.
    """
    if toml.resources.memory < needed:
        raise ConfigError(
            f"{toml.path}: `[resources] memory` is {as_size(toml.resources.memory)}, this image"
            f" needs {as_size(needed)}: its files are in memory twice",
            hint=f'set memory = "{as_size(needed)}" in [resources]',
        )


MIB = 1 << 20
BASE_MEMORY = 64 * MIB
"""What init and the data plane take before the image, with room for their buffers."""
KERNEL_MEMORY = 64 * MIB
"""What a kernel takes for itself, its page tables and its buffers."""
