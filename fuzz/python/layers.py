"""Any bytes as a layer of an image: walked, merged, and made a ramdisk.

Checksums of heads are put right first, as far as heads can be recognized. Whatever is merged makes
a ramdisk that our strict reader takes, with the paths of the tree: no entry leads out of it, and
none can be read differently later.
"""

import os
import sys

import atheris

with atheris.instrument_imports(include=["cloister", "tarfile"]):
    from cloister.build import cpio
    from cloister.build.content import Backing
    from cloister.build.ramdisk import Ramdisk
    from cloister.build.sources.archive import walk
    from cloister.build.sources.limits import Budget, Limits
    from cloister.build.sources.merge import Merging
    from cloister.errors import MalformedImage

from tar_heads import BLOCK, repaired

LIMITS = Limits(entries=1000, unpacked=1 << 20, header=1 << 16)


def one(data: bytes) -> None:
    """One input: two layers, cut where the first byte says."""
    if not data:
        return
    data, cut = repaired(data[1:]), BLOCK * data[0]
    merging, budget = Merging(), Budget(LIMITS)
    try:
        for layer in (data[:cut], data[cut:]):
            if layer:
                merging.add(walk(in_memory(layer).whole(), budget), "the layer")
        ramdisk = Ramdisk.of(merging.tree)
        if ramdisk.size > LIMITS.unpacked:
            return
        packed = b"".join(ramdisk.blocks())
    except MalformedImage:
        return
    assert len(packed) == ramdisk.size, "a ramdisk of another length than it said"
    found = [entry.path for entry in cpio.read(packed)]
    assert found == [path for path, _ in merging.tree], "a ramdisk that is not the tree"


def in_memory(data: bytes) -> Backing:
    """A file of these bytes, without a name."""
    fd = os.memfd_create("layer", os.MFD_CLOEXEC)
    os.write(fd, data)
    return Backing(fd, "layer")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
