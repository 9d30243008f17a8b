"""What an image's settings become in ``process.json``."""

import pytest

from cloister.build.image_config import MAX_NUMBER, MAX_VOLUMES, Healthcheck, ImageConfig
from cloister.errors import MalformedImage


def config(**settings: object) -> ImageConfig:
    return ImageConfig(entrypoint=["/app"], **settings)  # type: ignore[arg-type]


def test_an_image_without_volumes_and_check_says_nothing_of_them() -> None:
    assert config().process(with_healthcheck=True).keys() == {
        *("argv", "env", "cwd", "user", "groups", "stop_signal"),
    }


def test_a_health_check_is_in_process_json_only_when_it_decides() -> None:
    settings = config(healthcheck=Healthcheck(test=["CMD", "/check", "-q"]))
    assert "healthcheck" not in settings.process()
    assert settings.process(with_healthcheck=True)["healthcheck"] == {
        "argv": ["/check", "-q"],
        "interval_ms": 30_000,
        "timeout_ms": 30_000,
        "start_period_ms": 0,
        "start_interval_ms": 5_000,
        "retries": 3,
    }


def test_the_shell_form_of_a_check_runs_in_a_plain_shell_as_in_docker() -> None:
    settings = config(healthcheck=Healthcheck(test=["CMD-SHELL", "curl localhost"]))
    settings.shell = ["/bin/bash", "-ec"]
    process = settings.process(with_healthcheck=True)
    assert process["healthcheck"]["argv"] == ["/bin/sh", "-c", "curl localhost"]


def test_a_time_that_init_could_not_read_is_refused() -> None:
    most = config(healthcheck=Healthcheck(test=["CMD", "/check"], interval_ms=MAX_NUMBER))
    most.process(with_healthcheck=True)
    more = config(healthcheck=Healthcheck(test=["CMD", "/check"], interval_ms=MAX_NUMBER + 1))
    more.process()
    with pytest.raises(MalformedImage, match="interval_ms"):
        more.process(with_healthcheck=True)


def test_volumes_are_sorted_once_each_and_never_in_the_kernels_folders() -> None:
    settings = config(
        volumes=["/b/", "/a//x/../y", "/b", "//c", "/proc/x", "/sys/fs/cgroup", "/dev", "/devices"]
    )
    assert settings.process()["volumes"] == ["/a/y", "/b", "/c", "/devices"]
    assert set(settings.volume_paths) - set(settings.mounted_volumes) == {
        *("/proc/x", "/sys/fs/cgroup", "/dev"),
    }


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SIGTERM", 15),
        ("int", 2),
        ("10", 10),
        ("SIGRTMIN", 34),
        ("RTMIN+3", 37),
        ("RTMAX-2", 62),
        ("CLD", 17),
        ("IOT", 6),
    ],
)
def test_a_signal_has_every_name_that_docker_knows(name: str, number: int) -> None:
    found = config(stop_signal=name).process()["stop_signal"]
    assert (found, type(found)) == (number, int)


@pytest.mark.parametrize("name", ["0", "65", "SIG", "NOTHING", "RTMIN+31", "RTMAX-31", "-1"])
def test_a_signal_that_does_not_exist_is_named(name: str) -> None:
    with pytest.raises(MalformedImage, match="there is no signal"):
        config(stop_signal=name).process()


@pytest.mark.parametrize("path", ["data", "", "/", "/a/..", "//", "/a\0b"])
def test_a_path_that_docker_refuses_is_no_volume(path: str) -> None:
    with pytest.raises(MalformedImage, match="VOLUME"):
        config(volumes=[path]).process()
    config(volumes=["/data"]).process()


def test_volumes_have_a_limit() -> None:
    paths = [f"/{number}" for number in range(MAX_VOLUMES + 1)]
    config(volumes=paths[1:]).process()
    with pytest.raises(MalformedImage, match="64"):
        config(volumes=paths).process()
