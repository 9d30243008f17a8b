"""What a requirements.txt names, as wheels: downloaded once by pip, which checks every hash."""

import fcntl
import hashlib
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest
from tests.support.base_images import cache_folder

DOWNLOAD_SECONDS = 200


def wheels(requirements: pathlib.Path) -> pathlib.Path:
    """A folder with the wheels, not to be changed.

    Skips the test where no index is within reach. That a package is not in the index, or has
    another hash, is a failure.
    """
    name = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    folder = cache_folder() / f"wheels-{name}"
    with (cache_folder() / "wheels.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _download(requirements, folder)
    return folder


def _download(requirements: pathlib.Path, folder: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache_folder()) as partial:
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
        command += ["--require-hashes", "--only-binary=:all:", "--no-deps", "--retries=2"]
        done = subprocess.run(
            [*command, f"--dest={partial}", f"--requirement={requirements}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=DOWNLOAD_SECONDS,
        )
        if done.returncode != 0:
            said = f"{done.stdout}{done.stderr}"[-1000:]
            if "Retrying (" in said or "ConnectionError" in said:
                pytest.skip(f"no index of Python packages within reach, so NOT TESTED: {said}")
            pytest.fail(f"the wheels cannot be downloaded: {said}")
        shutil.copytree(partial, folder)
