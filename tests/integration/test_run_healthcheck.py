"""``cloister run`` of an image whose HEALTHCHECK decides: from the build to the first request."""

import json
import pathlib
import shutil
import time

import pytest
from tests.support import static_binaries
from tests.support.local_run import EXAMPLE, Somebody, running

DOCKERFILE = """\
FROM scratch
COPY hello-enclave /hello-enclave
COPY check /check
EXPOSE 8008
HEALTHCHECK CMD ["/check", "exit", "{code}"]
ENTRYPOINT ["/hello-enclave"]
"""


def built(folder: pathlib.Path, who: Somebody, *, code: int) -> pathlib.Path:
    """A project whose check ends with this code, built; `build` says that the check decides."""
    project = folder / "hello"
    project.mkdir()
    shutil.copy2(EXAMPLE / "hello-enclave", project)
    shutil.copy2(static_binaries.fixture("fixture-witness"), project / "check")
    (project / "Dockerfile").write_text(DOCKERFILE.format(code=code))
    who.run("init", "hello", folder=project)
    said = who.json("build", "--builder", "native", folder=project)
    assert "HEALTHCHECK of the image decides" in " ".join(said["warnings"])
    return project


@pytest.fixture(name="who")
def somebody(tmp_path: pathlib.Path) -> Somebody:
    return Somebody(home=tmp_path / "home")


def test_an_image_with_a_check_is_ready_without_waiting_for_an_interval(
    tmp_path: pathlib.Path, who: Somebody
) -> None:
    """Docker's interval is 30 s, after which it would ask for the first time."""
    project = built(tmp_path, who, code=0)
    began = time.monotonic()
    with running(who, project) as run:
        assert time.monotonic() - began < 25
        assert run.curl("/")[0] == 200


def test_an_image_whose_check_fails_is_not_ready_and_says_why(
    tmp_path: pathlib.Path, who: Somebody
) -> None:
    project = built(tmp_path, who, code=4)
    words = ("run", "--listen", "127.0.0.1:0", "--start-timeout", "8s")
    out, _ = who.run(*words, "--json", folder=project, status=69)
    message = json.loads(out.splitlines()[-1])["error"]["message"]
    assert "HEALTHCHECK of the image: exit code 4" in message
