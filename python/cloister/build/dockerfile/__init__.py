"""Dockerfiles without a builder: read, and run as far as files and settings go.

:mod:`~cloister.build.dockerfile.lex` finds instructions and their lines,
:mod:`~cloister.build.dockerfile.parse` gives each its form, and
:mod:`~cloister.build.dockerfile.run` makes the image. What needs a running container (RUN) or
another image is refused, by line. The reference is BuildKit's Dockerfile reference.
"""

from cloister.build.built_image import BuiltImage
from cloister.build.dockerfile.run import run
from cloister.build.image_config import ImageConfig

__all__ = ["BuiltImage", "ImageConfig", "run"]
