"""The platform of a host, which is given no token that may do more than a host has to."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from cloister.errors import ConfigError, TransportError
from cloister.platform.https import PlatformClient
from cloister.platform.interface import ActiveDeployment
from cloister.platform.remote import RemotePlatform

RELAY = "relay:"


class CheckedPlatform:
    """Asks what is to run, after it has looked once at what its token may do.

    Args:
        client: The connection.
        trust_class: Class of the host, which is to be the platform's.
        enclaves: The enclaves of the host.
    """

    def __init__(
        self, client: PlatformClient, *, trust_class: str, enclaves: Sequence[UUID]
    ) -> None:
        self._client = client
        self._remote = RemotePlatform(client)
        self._trust_class = trust_class
        self._enclaves = enclaves
        self._is_checked = False

    def check(self) -> None:
        """Looks at the token.

        Raises:
            ConfigError: It may do more than carry for enclaves, or does not carry for one of this
                host; or the platform is of another class.
            PermissionRefused: It does not work.
            TransportError: The platform cannot be reached.
        """
        me = token_of(self._client)
        carried = relayed(me)
        if me["trust_class"] != self._trust_class:
            raise ConfigError(
                f"the platform {self._client.url} is of class `{me['trust_class']}`, and this host"
                f" of class `{self._trust_class}`"
            )
        for enclave in self._enclaves:
            if enclave not in carried:
                raise ConfigError(
                    f"the token `{me['name']}` of this host is not for the enclave {enclave}",
                    hint=f"cloister platform token create --scope relay:{enclave} --name …",
                )
        self._is_checked = True

    def active_deployments(self, enclave_uuid: UUID) -> list[ActiveDeployment]:
        """What is to run of an enclave, the newest first.

        Raises:
            ConfigError: As :meth:`check`, when it could not look before.
            CloisterError: What the platform says.
        """
        if not self._is_checked:
            self.check()
        return self._remote.active_deployments(enclave_uuid)

    def record_event(self, enclave_uuid: UUID, kind: str, message: str) -> None:
        """Tells the platform what happened to an enclave.

        Raises:
            CloisterError: It does not take it.
        """
        self._remote.record_event(enclave_uuid, kind, message)

    def close(self) -> None:
        """Ends waits between attempts."""
        self._client.close()


def token_of(client: PlatformClient) -> dict[str, Any]:
    """What the platform says of the token: ``name``, ``scopes``, ``trust_class``.

    Raises:
        CloisterError: It does not work, or the platform cannot be reached.
    """
    me = client.get("/v1/token", deadline_s=LOOK_SECONDS)
    is_known = isinstance(me, dict) and {"name", "scopes", "trust_class"} <= me.keys()
    if not is_known or not isinstance(me["scopes"], list):
        raise TransportError(f"the platform {client.url} does not say what the token may do")
    return dict(me)


def relayed(me: dict[str, Any]) -> list[UUID]:
    """The enclaves that a token carries for.

    Raises:
        ConfigError: It may do more: a host is not trusted with that.
    """
    found = []
    for scope in me["scopes"]:
        try:
            if not scope.startswith(RELAY):
                raise ValueError(scope)
            found.append(UUID(scope.removeprefix(RELAY)))
        except (AttributeError, ValueError):
            raise ConfigError(
                f"the token `{me['name']}` has the scope `{scope}`: a host is not trusted with more"
                " than `relay`",
                hint="cloister platform token create --scope relay:UUID --name host-1",
            ) from None
    return found


LOOK_SECONDS = 5.0
