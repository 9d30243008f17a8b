"""T-08: a host that withholds bundles gets 503 answers, and never longer service than it was given.

Forged, replayed, older, foreign and oversized bundles are refused in
``rust/dataplane/src/provision/tests.rs``, each with its honest twin, under a clock that a test can
move: there the limit of 15 minutes is shown as it is. Here the same is shown from outside, with
bundles of a short life, through TLS and HTTP.
"""

import datetime as dt
import secrets
from collections.abc import Iterator

import pytest
import requests
from tests.support.application import Application, application, wait_until

from cloister.dev import DataPlane

LIFE = dt.timedelta(seconds=3)


@pytest.fixture
def app() -> Iterator[Application]:
    with application() as running:
        yield running


def status(plane: DataPlane, key: str | None = None) -> int:
    headers = {"api-key": key or plane.api_key}
    answer = requests.get(plane.url, headers=headers, verify=str(plane.ca_file), timeout=10)
    return answer.status_code


def test_a_carried_bundle_is_renewed_for_as_long_as_one_likes(app: Application) -> None:
    """The positive twin: three lives pass and every request is served."""
    with DataPlane(app.address, bundle_life=LIFE) as plane:
        end = dt.datetime.now(dt.UTC) + 3 * LIFE
        while dt.datetime.now(dt.UTC) < end:
            assert status(plane) == 200


def test_withheld_bundles_end_in_503_and_service_comes_back(app: Application) -> None:
    with DataPlane(app.address, bundle_life=LIFE) as plane:
        assert status(plane) == 200
        plane.hold_back_bundles(held_back=True)
        wait_until(lambda: status(plane) == 503)
        answer = requests.get(
            plane.url, headers={"api-key": plane.api_key}, verify=str(plane.ca_file), timeout=10
        )
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        served = len(app.seen)
        assert plane.health()["state"] == "provisioning"
        # Nothing reaches the application, with whatever key.
        assert status(plane, key="nonsense-nonsense") in {401, 503}
        assert len(app.seen) == served

        plane.hold_back_bundles(held_back=False)
        wait_until(lambda: status(plane) == 200)
        assert plane.health()["state"] == "ready"


def test_a_withheld_revocation_lasts_no_longer_than_the_bundle(app: Application) -> None:
    with DataPlane(app.address, bundle_life=LIFE) as plane:
        revoked = plane.api_key
        plane.hold_back_bundles(held_back=True)
        plane.replace_api_keys([f"ck_next_{secrets.token_urlsafe(32)}"])
        assert status(plane, key=revoked) == 200
        wait_until(lambda: status(plane, key=revoked) == 503)
        plane.hold_back_bundles(held_back=False)
        wait_until(lambda: status(plane, key=revoked) == 401)


def test_a_carried_revocation_is_in_force_at_once(app: Application) -> None:
    with DataPlane(app.address) as plane:
        revoked = plane.api_key
        assert status(plane, key=revoked) == 200
        following = f"ck_next_{secrets.token_urlsafe(32)}"
        plane.replace_api_keys([following])
        wait_until(lambda: status(plane, key=revoked) == 401, seconds=5)
        assert status(plane, key=following) == 200
