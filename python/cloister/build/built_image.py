"""What a builder or an image archive hands over: files, and the settings of what runs."""

import dataclasses

from cloister.build.image_config import ImageConfig
from cloister.build.rootfs import Tree


@dataclasses.dataclass(slots=True, kw_only=True)
class BuiltImage:
    """What a builder hands over.

    Args:
        tree: The files.
        config: The settings.
        bases: What it was built from: names of base images, each with its digest.
        warnings: What the user should know.
        left_out: Files of the context that are never copied and were asked for.
        identity: A digest that names files and settings, ``sha256:…``; ``None``: nothing names them
            but their bytes, so nothing of them is kept between builds.
        builder: What built it, for the record and the user: ``native``, ``docker (BuildKit)``.
    """

    tree: Tree
    config: ImageConfig
    bases: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    left_out: list[str] = dataclasses.field(default_factory=list)
    identity: str | None = None
    builder: str = "native"
