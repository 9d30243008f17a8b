"""From an image to an enclave image (EIF), and what it measures to.

:func:`build_image` runs the stages, one a file: Dockerfile → file tree (:mod:`rootfs`) → ramdisks
(:mod:`cpio`) → EIF (:mod:`eif`). :func:`measure` computes the registers of any EIF. The same input
gives the same bytes, on any machine.
"""

from cloister.build.eif import Eif, Pcrs, SigningPair, measure, open_eif
from cloister.build.image import Built, Request, build_image, memory_needed, write_pcrs

__all__ = [
    "Built",
    "Eif",
    "Pcrs",
    "Request",
    "SigningPair",
    "build_image",
    "measure",
    "memory_needed",
    "open_eif",
    "write_pcrs",
]
