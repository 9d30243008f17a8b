"""Programs that run Dockerfiles in containers, behind one protocol: docker, buildah, podman.

:func:`choose` takes the one that works; :meth:`ContainerBuilder.build` gives an image in that
program's own store, which saves itself as an archive for :mod:`cloister.build.sources`. The native
builder, which needs no program, is :mod:`cloister.build.dockerfile`; here it is a name to choose.

The programs are the user's own and trusted as such. What they print is not: it may come from
anything that a Dockerfile runs, so it is shown without control characters.
"""

from cloister.build.builders.buildah import Buildah, Podman
from cloister.build.builders.choose import NAMES, all_builders, choose
from cloister.build.builders.docker import Docker
from cloister.build.builders.native import Native
from cloister.build.builders.protocol import (
    Builder,
    BuildRequest,
    ContainerBuilder,
    StoredImage,
    Unusable,
)

__all__ = [
    "NAMES",
    "BuildRequest",
    "Buildah",
    "Builder",
    "ContainerBuilder",
    "Docker",
    "Native",
    "Podman",
    "StoredImage",
    "Unusable",
    "all_builders",
    "choose",
]
