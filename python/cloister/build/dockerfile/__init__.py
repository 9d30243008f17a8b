"""Dockerfiles without a builder: read, and run as far as files and settings go.

:mod:`~cloister.build.dockerfile.lex` finds instructions and their lines,
:mod:`~cloister.build.dockerfile.parse` gives each its form,
:mod:`~cloister.build.dockerfile.plan` cuts them into stages, and
:mod:`~cloister.build.dockerfile.run` makes the image of one. What needs a running container (RUN)
or an image of a registry is refused, by line; :func:`needs_container` tells beforehand. The
reference is BuildKit's Dockerfile reference.
"""

from cloister.build.built_image import BuiltImage
from cloister.build.dockerfile.needs import needs_container
from cloister.build.dockerfile.run import Options, run
from cloister.build.image_config import ImageConfig

__all__ = ["BuiltImage", "ImageConfig", "Options", "needs_container", "run"]
