"""From an image to an enclave image (EIF), and what it measures to.

:func:`build_image` runs the stages, one a file: Dockerfile or saved image (:mod:`obtain`) → file
tree (:mod:`rootfs`) → ramdisks (:mod:`ramdisk`) → EIF (:mod:`eif`). :func:`measure` computes the
registers of any EIF. The same input gives the same bytes, on any machine.
"""

from cloister.build.eif import Eif, Pcrs, SigningPair, measure, open_eif
from cloister.build.image import Built, build_image, write_pcrs
from cloister.build.memory import memory_needed
from cloister.build.progress import Progress, Silent
from cloister.build.request import FromDockerfile, FromFolder, FromImage, Request

__all__ = [
    "Built",
    "Eif",
    "FromDockerfile",
    "FromFolder",
    "FromImage",
    "Pcrs",
    "Progress",
    "Request",
    "SigningPair",
    "Silent",
    "build_image",
    "measure",
    "memory_needed",
    "open_eif",
    "write_pcrs",
]
