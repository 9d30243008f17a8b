"""T-21: a document that an application can have made is never good for provisioning.

The internal API signs what an application asks for: `user_data` that is UTF-8 text, any nonce, any
public key with an empty or textual `user_data`. The platform must refuse each of these.
"""

import pathlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.platform_world import World, make_world

from cloister.errors import ReleaseRefused


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    directory: pathlib.Path = tmp_path_factory.mktemp("t21")
    return make_world(directory)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.one_of(st.none(), st.text(max_size=64)))
def test_no_textual_user_data_is_provisioned(world: World, text: str | None) -> None:
    world.provision()
    with pytest.raises(ReleaseRefused, match="not made for provisioning"):
        world.provision(user_data=None if text is None else text.encode())


def test_the_purpose_itself_is_not_text(world: World) -> None:
    """What the internal API refuses to sign is exactly what the platform asks for."""
    for lookalike in ("\xffcloister/provision/v1", "cloister/provision/v1", "\ufffdcloister"):
        with pytest.raises(ReleaseRefused, match="not made for provisioning"):
            world.provision(user_data=lookalike.encode())
    world.provision()


def test_a_tls_binding_is_not_provisioned(world: World) -> None:
    """The attestation endpoint's documents have a SubjectPublicKeyInfo as `user_data`."""
    prefix = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
    with pytest.raises(ReleaseRefused, match="not made for provisioning"):
        world.provision(user_data=prefix + b"\x04" + b"k" * 64)
    world.provision()
