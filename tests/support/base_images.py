"""Base images for tests: Debian by mmdebstrap, kept between runs.

The packages come from the mirror that this machine's apt uses. An image has no sources of packages:
``apt-get update`` in it works without a network and finds nothing, ``apt-get install`` of what is
there already does nothing. So a Dockerfile that installs python3 builds offline on the image that
has it.
"""

import fcntl
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile

import pytest

MAKE_SECONDS = 280
SMALL = "cloister-tests/debian:small"
PYTHON = "cloister-tests/debian:python"
PACKAGES = {SMALL: "", PYTHON: "python3,python3-venv"}
ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
# No source of packages, nothing about this machine.
REMOVED = "etc/apt/sources.list etc/apt/sources.list.d/* etc/hostname etc/resolv.conf var/log/*"
# Documentation and translations: half of the files, read by nobody here.
DROPPED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


def base_archive(name: str) -> pathlib.Path:
    """A base image as a ``docker save`` archive; made when it is not there yet.

    Skips the test where it cannot be made: no mmdebstrap, no root, no mirror within reach.
    """
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in DROPPED]
    options += ["--variant=minbase", f'--customize-hook=cd "$1" && rm -rf {REMOVED}']
    if PACKAGES[name]:
        options.append(f"--include={PACKAGES[name]}")
    recipe = hashlib.sha256(json.dumps([options, _suite()]).encode()).hexdigest()[:12]
    archive = cache_folder() / f"{name.rpartition(':')[2]}-{recipe}.tar"
    with (cache_folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            _make(name, options, archive)
    return archive


def cache_folder() -> pathlib.Path:
    """Where tests keep what is slow to make."""
    given = os.environ.get("XDG_CACHE_HOME")
    root = pathlib.Path(given) if given else pathlib.Path.home() / ".cache"
    folder = root / "cloister-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _suite() -> str:
    """The release of this machine, which is what its apt has sources for."""
    for line in pathlib.Path("/etc/os-release").read_text().splitlines():
        name, _, value = line.partition("=")
        if name == "VERSION_CODENAME":
            return value.strip('"')
    pytest.skip("base images are made on Debian alone")


def _make(name: str, options: list[str], archive: pathlib.Path) -> None:
    if shutil.which("mmdebstrap") is None:
        pytest.skip("`mmdebstrap` is not there: install mmdebstrap")
    if os.getuid() != 0:
        pytest.skip("base images are made as root")
    with tempfile.TemporaryDirectory(prefix="cloister-base-") as folder:
        layer = pathlib.Path(folder) / "layer.tar"
        done = subprocess.run(
            ["mmdebstrap", *options, _suite(), str(layer)],
            env=dict(os.environ) | {"SOURCE_DATE_EPOCH": "0"},
            capture_output=True,
            text=True,
            check=False,
            timeout=MAKE_SECONDS,
        )
        if done.returncode != 0:
            pytest.skip(f"no base image: {done.stderr[-500:]}")
        partial = archive.with_suffix(".partial")
        _pack(name, layer, partial)
        partial.rename(archive)


def _pack(name: str, layer: pathlib.Path, archive: pathlib.Path) -> None:
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = {
        "architecture": "amd64",
        "config": {"Env": ENVIRONMENT, "Cmd": ["/bin/sh"]},
        "created": "1970-01-01T00:00:00Z",
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "mmdebstrap"}],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    raw = json.dumps(config).encode()
    named = f"{hashlib.sha256(raw).hexdigest()}.json"
    manifest = [{"Config": named, "RepoTags": [name], "Layers": [f"{digest}.tar"]}]
    with tarfile.open(archive, "w") as tar:
        for member, data in [(named, raw), ("manifest.json", json.dumps(manifest).encode())]:
            about = tarfile.TarInfo(member)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
        tar.add(layer, f"{digest}.tar")
