"""What runs is what the final image's config says: a table, against what Docker itself does.

Each image is built by the BuildKit of a private dockerd and by the native builder. Compared are the
settings, as ``docker image inspect`` says them, and what the program sees: run by Docker as a
container, and in the sandbox. :data:`DELIBERATE` is all that may differ.
"""

import os
import pathlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support import what_runs
from tests.support.container_daemon import Daemon
from tests.support.project import Project

DELIBERATE = (
    # The name of a container is random and is its host name; an enclave's is in enclave.toml.
    r"HOSTNAME=[0-9a-f]{12}",
    # Says to the application that its secrets are there.
    r"EV_INITIALIZED=true",
    # A variable of the platform: that of the script which stands for the data plane here.
    r"SECRET=exact\n\"bytes\"",
)
"""Variables that one side has and the other has not. Besides these, ``confinement`` differs: which
of Docker's capabilities and system calls an enclave lacks is T-16 (SECURITY.md)."""

COMMANDS = {
    "CMD in the exec form": 'FROM base\nCMD ["app", "one", "two words", "", "$HOME"]',
    "CMD in the shell form": "FROM base\nCMD app $HOME \"a b\" 'c'  &&  true",
    "the last CMD": 'FROM base\nCMD ["app", "first"]\nCMD ["app", "last"]',
    "ENTRYPOINT alone": 'FROM base\nENTRYPOINT ["/bin/app", "alone"]',
    "ENTRYPOINT and CMD, both exec": 'FROM base\nENTRYPOINT ["app", "a"]\nCMD ["b", "c d"]',
    "ENTRYPOINT exec, CMD shell": 'FROM base\nENTRYPOINT ["app", "a"]\nCMD b c',
    "ENTRYPOINT shell, CMD exec": 'FROM base\nENTRYPOINT exec app a\nCMD ["ignored"]',
    "ENTRYPOINT and CMD, both shell": "FROM base\nENTRYPOINT app a\nCMD b c",
    "CMD before ENTRYPOINT": 'FROM base\nCMD ["b"]\nENTRYPOINT ["app", "a"]',
    "CMD inherited": 'FROM base AS inner\nCMD ["app", "inherited"]\nFROM inner',
    "CMD inherited, reset by ENTRYPOINT": 'FROM base AS inner\nCMD ["inherited"]\n'
    'FROM inner\nENTRYPOINT ["app", "a"]',
    "CMD inherited, reset by ENTRYPOINT, set again": 'FROM base AS inner\nCMD ["inherited"]\n'
    'FROM inner\nENTRYPOINT ["app", "a"]\nCMD ["own"]',
    "CMD inherited, own CMD before ENTRYPOINT": 'FROM base AS inner\nCMD ["inherited"]\n'
    'FROM inner\nCMD ["own"]\nENTRYPOINT ["app", "a"]',
    "ENTRYPOINT inherited, CMD own": 'FROM base AS inner\nENTRYPOINT ["app", "inner"]\nCMD ["x"]\n'
    'FROM inner\nCMD ["own"]',
    "ENTRYPOINT emptied": 'FROM base AS inner\nENTRYPOINT ["app", "inner"]\nCMD ["x"]\n'
    'FROM inner\nENTRYPOINT []\nCMD ["app", "own"]',
    "SHELL for CMD": 'FROM base\nSHELL ["/bin/bash", "-o", "pipefail", "-c"]\nCMD app a | true',
    "SHELL for ENTRYPOINT": 'FROM base\nSHELL ["/bin/bash", "-c"]\nENTRYPOINT app a',
    "SHELL inherited": 'FROM base AS inner\nSHELL ["/bin/bash", "-c"]\nFROM inner\nCMD app a',
    "a list that is none": "FROM base\nCMD ['app', 'a']",
    "a command over several lines": 'FROM base\nCMD ["app", \\\n  # a comment\n  "next"]',
}
ENVIRONMENT = {
    "ENV in order, overridden in place": "FROM base\nENV A=1 B=2\nENV C=3\nENV A=4\nCMD app",
    "ENV with values of ENV": 'FROM base\nENV A=1\nENV A=2 B=$A C="${A}x"\n'
    "ENV D=${E:-none}\nCMD app",
    "ENV in the old form": 'FROM base\nENV A one  two "three"\nCMD app',
    "ENV with quotes, escapes and nothing": "FROM base\nENV A=\"a b\" B='$A' C=\\$A D= E=a\\ b\n"
    "CMD app",
    "ENV with ARG": "FROM base\nARG X=given\nENV A=$X\nENV B=${X}\nCMD app",
    "ENV inherited": "FROM base AS inner\nENV A=1 B=2\nFROM inner\nENV B=3 C=$A\nCMD app",
    "PATH of the image": 'FROM base\nENV PATH=/nowhere:/tools:$PATH\nCMD ["app"]',
    "PATH of the image alone": 'FROM base\nENV PATH=/tools\nCMD ["app"]',
    "HOME of the image": "FROM base\nENV HOME=/custom\nUSER app\nCMD app",
    "HOME that is empty": "FROM base\nENV HOME=\nUSER app\nCMD app",
    "HOSTNAME of the image": "FROM base\nENV HOSTNAME=own\nCMD app",
}
FOLDERS = {
    "WORKDIR that is there": "FROM base\nWORKDIR /data\nCMD app",
    "WORKDIR that is made": "FROM base\nWORKDIR /made/deep\nCMD app",
    "WORKDIR relative": "FROM base\nWORKDIR /a\nWORKDIR b\nWORKDIR ../c/./d\nCMD app",
    "WORKDIR relative to nothing": "FROM base\nWORKDIR made\nCMD app",
    "WORKDIR with a variable": "FROM base\nENV DIR=/from/env\nWORKDIR $DIR/x\nCMD app",
    "WORKDIR with a slash at its end": "FROM base\nWORKDIR /made/\nCMD app",
    "WORKDIR of another user": "FROM base\nUSER app\nWORKDIR /made\nCMD app",
    "WORKDIR owned by another user": "FROM base\nWORKDIR /owned\nUSER app\nCMD app",
    "WORKDIR inherited": "FROM base AS inner\nWORKDIR /a\nFROM inner\nWORKDIR b\nCMD app",
    "a program relative to WORKDIR": 'FROM base\nWORKDIR /tools\nCMD ["./app"]',
}
# A group whose name is a number is left out: Docker takes the number for the primary group, and
# runc the name for the supplementary one.
USERS = {
    "USER by name": "FROM base\nUSER app\nCMD app",
    "USER by number": "FROM base\nUSER 1000\nCMD app",
    "USER by a number of nobody": "FROM base\nUSER 4242\nCMD app",
    "USER name:group": "FROM base\nUSER app:www\nCMD app",
    "USER number:number": "FROM base\nUSER 1000:33\nCMD app",
    "USER number:number of nobody": "FROM base\nUSER 4242:4343\nCMD app",
    "USER name:number": "FROM base\nUSER app:4343\nCMD app",
    "USER number:name": "FROM base\nUSER 1000:logs\nCMD app",
    "USER with a group and no name": "FROM base\nUSER :www\nCMD app",
    "USER with a colon at its end": "FROM base\nUSER app:\nCMD app",
    "USER that shares its number": "FROM base\nUSER twin\nCMD app",
    "USER with several groups": "FROM base\nUSER many\nCMD app",
    "USER without a home": "FROM base\nUSER homeless\nCMD app",
    "USER root": "FROM base\nUSER root\nCMD app",
    "USER 0:0": "FROM base\nUSER 0:0\nCMD app",
    "USER inherited and replaced": "FROM base AS inner\nUSER app\nFROM inner\nUSER root\nCMD app",
    "USER with a variable": "FROM base\nENV WHO=app\nUSER ${WHO}:www\nCMD app",
}
SIGNALS = {
    "STOPSIGNAL by name": "FROM base\nSTOPSIGNAL SIGQUIT\nCMD app",
    "STOPSIGNAL by its short name": "FROM base\nSTOPSIGNAL INT\nCMD app",
    "STOPSIGNAL by number": "FROM base\nSTOPSIGNAL 10\nCMD app",
    "STOPSIGNAL of real time": "FROM base\nSTOPSIGNAL SIGRTMIN+3\nCMD app",
    "STOPSIGNAL below the last": "FROM base\nSTOPSIGNAL RTMAX-2\nCMD app",
    "STOPSIGNAL inherited": "FROM base AS inner\nSTOPSIGNAL SIGHUP\nFROM inner\nCMD app",
}
OTHERS = {
    "EXPOSE": "FROM base\nEXPOSE 8080 8080/udp\nCMD app",
    "EXPOSE of a range": "FROM base\nEXPOSE 7000-7002/udp 8080/TCP\nCMD app",
    "LABEL": 'FROM base\nLABEL a=1 "b c"="d e"\nCMD app',
    "ONBUILD": "FROM base\nONBUILD ENV LATER=1\nCMD app",
    "VOLUME with files": 'FROM base\nENV LOOK=/data\nVOLUME ["/data"]\nCMD app',
    "VOLUME that is made": "FROM base\nENV LOOK=/made/deep:/made\nVOLUME /made/deep\nCMD app",
    "VOLUME of another user": "FROM base\nENV LOOK=/owned\nVOLUME /owned\nUSER app\nCMD app",
    "VOLUME that is not the user's": "FROM base\nENV LOOK=/data\nVOLUME /data\nUSER app\nCMD app",
    "VOLUME inside another": "FROM base\nENV LOOK=/data:/data/deep\nVOLUME /data /data/deep\n"
    "CMD app",
    "VOLUME that is WORKDIR": "FROM base\nENV LOOK=/owned\nVOLUME /owned\nWORKDIR /owned\nCMD app",
    "VOLUME inherited": "FROM base AS inner\nENV LOOK=/data:/owned\nVOLUME /data\n"
    "FROM inner\nVOLUME /owned\nCMD app",
    "VOLUME /tmp": "FROM base\nENV LOOK=/tmp\nVOLUME /tmp\nCMD app",
}
CHECKS = {
    "HEALTHCHECK exec": 'FROM base\nHEALTHCHECK --interval=1s CMD ["check", "a b", ""]\nCMD app',
    "HEALTHCHECK shell": "FROM base\nHEALTHCHECK --interval=1s CMD check a $HOME || exit 1\n"
    "CMD app",
    "HEALTHCHECK in SHELL": 'FROM base\nSHELL ["/bin/bash", "-ec"]\n'
    "HEALTHCHECK --interval=1s --timeout=5s CMD check a\nCMD app",
    "HEALTHCHECK as USER in WORKDIR with ENV": "FROM base\nENV A=1 LOOK=/owned\nWORKDIR /owned\n"
    'VOLUME /owned\nUSER many\nHEALTHCHECK --interval=1s CMD ["/bin/check"]\nCMD app',
    "HEALTHCHECK inherited": "FROM base AS inner\n"
    'HEALTHCHECK --interval=1s CMD ["check", "inner"]\nFROM inner\nCMD ["app"]',
}
SETTINGS = {
    "HEALTHCHECK with every option": "FROM base\nHEALTHCHECK --interval=1m30s --timeout=1.5s"
    " --start-period=500ms --retries=7 CMD curl -f localhost\nCMD app",
    "HEALTHCHECK NONE": "FROM base AS inner\nHEALTHCHECK CMD check\nFROM inner\nHEALTHCHECK NONE\n"
    "CMD app",
    "HEALTHCHECK replaced": "FROM base AS inner\n"
    "HEALTHCHECK --interval=9s --retries=9 CMD check a\n"
    'FROM inner\nHEALTHCHECK --timeout=8s CMD ["check", "b"]\nCMD app',
}
RUN = COMMANDS | ENVIRONMENT | FOLDERS | USERS | SIGNALS | OTHERS | CHECKS


@pytest.fixture(scope="module", name="initialized")
def initialized_project(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with an enclave.toml and its keys."""
    project = Project(tmp_path_factory.mktemp("project"))
    project.run("init", "witness")
    return project.folder


@pytest.fixture(name="folder")
def short_folder() -> Iterator[pathlib.Path]:
    with what_runs.short_folder() as folder:
        yield folder


def built_by_docker(daemon: Daemon, context: pathlib.Path, case: str) -> str:
    """The name of the image."""
    name = "what-runs:" + "".join(char if char.isalnum() else "-" for char in case).lower()
    builder = daemon.builders().get("buildkit")
    if builder is None:
        pytest.skip("no docker client has BuildKit, which the table is about: install docker.io")
    done = subprocess.run(
        [builder.program, "build", "--quiet", "--tag", name, str(context)],
        env=dict(os.environ) | builder.variables | {"DOCKER_BUILDKIT": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return name


@pytest.mark.parametrize(
    "case",
    sorted(RUN | SETTINGS),
)
def test_what_runs_is_what_docker_runs(
    case: str, docker_daemon: Daemon, initialized: pathlib.Path, folder: pathlib.Path
) -> None:
    """The settings first, by both ways that an image comes in; then the process, and its end."""
    context = folder / "project"
    what_runs.write_context(context, (RUN | SETTINGS)[case] + "\n")
    name = built_by_docker(docker_daemon, context, case)
    expected = what_runs.comparable(what_runs.inspected_config(docker_daemon, name))
    assert what_runs.comparable(what_runs.native_config(context)) == expected
    saved = what_runs.saved_config(docker_daemon, name, folder)
    assert what_runs.comparable(saved) == expected
    if case in SETTINGS:
        return

    is_checked = case in CHECKS
    by_docker = what_runs.run_by_docker(docker_daemon, name, is_checked=is_checked)
    shutil.copytree(initialized / ".cloister", context / ".cloister")
    shutil.copy(initialized / "enclave.toml", context)
    contents = what_runs.build_enclave(Project.of(context))
    by_us = what_runs.run_in_sandbox(contents, folder, is_checked=is_checked)
    assert comparable(by_us.main) == comparable(by_docker.main)
    assert by_us.signal == by_docker.signal
    if by_us.check is not None and by_docker.check is not None:
        assert comparable(by_us.check) == comparable(by_docker.check)
        assert by_us.check["confinement"] == by_us.main["confinement"]
    assert (by_us.check is None) == (by_docker.check is None) == (not is_checked)


def comparable(told: dict[str, Any]) -> dict[str, Any]:
    env = [line for line in told["env"] if not re.fullmatch("|".join(DELIBERATE), line)]
    return {key: value for key, value in told.items() if key != "confinement"} | {"env": env}
