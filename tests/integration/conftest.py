"""Daemons, stores and base images that several modules use: made once, when first asked for."""

import pathlib
from collections.abc import Iterator

import pytest
from tests.support import base_images
from tests.support.container_daemon import Daemon, Store, private_daemon, private_store


@pytest.fixture(scope="session")
def small_base() -> pathlib.Path:
    """Debian without Python."""
    return base_images.base_archive(base_images.SMALL)


@pytest.fixture(scope="session")
def python_base() -> pathlib.Path:
    """Debian with python3 and python3-venv."""
    return base_images.base_archive(base_images.PYTHON)


@pytest.fixture(scope="session")
def docker_daemon() -> Iterator[Daemon]:
    """A dockerd without images."""
    with private_daemon() as daemon:
        yield daemon


@pytest.fixture(scope="session")
def container_store() -> Iterator[Store]:
    """A store of buildah and podman without images."""
    with private_store() as store:
        yield store


@pytest.fixture(scope="session")
def small_in_docker(docker_daemon: Daemon, small_base: pathlib.Path) -> str:
    """The name of the small base in the daemon."""
    docker_daemon.docker("load", "--quiet", "--input", str(small_base))
    return base_images.SMALL


@pytest.fixture(scope="session")
def small_in_store(container_store: Store, small_base: pathlib.Path) -> str:
    """The name of the small base in the store."""
    container_store.run("pull", "--quiet", f"docker-archive:{small_base}")
    return base_images.SMALL


@pytest.fixture(scope="session")
def python_in_docker(docker_daemon: Daemon, python_base: pathlib.Path) -> str:
    """The name of the base with Python in the daemon."""
    docker_daemon.docker("load", "--quiet", "--input", str(python_base))
    return base_images.PYTHON


@pytest.fixture(scope="session")
def python_in_store(container_store: Store, python_base: pathlib.Path) -> str:
    """The name of the base with Python in the store."""
    container_store.run("pull", "--quiet", f"docker-archive:{python_base}")
    return base_images.PYTHON
