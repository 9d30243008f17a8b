"""An owner's calls over HTTPS: what :class:`~cloister.platform.owner.Owner` does, on a server."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from cloister.errors import TransportError
from cloister.platform.https import PlatformClient, part
from cloister.platform.owner import Json


class RemoteOwner:
    """The owner's calls, asked of a server. Errors are those of a local store.

    Args:
        client: The connection, with a token of a scope that permits what is asked.
    """

    def __init__(self, client: PlatformClient) -> None:
        self._client = client

    def who_am_i(self) -> Json:
        """The token, its scopes, and the class of the platform."""
        return _one(self._client.get("/v1/token"))

    def apps(self) -> list[Json]:
        """Apps that the token has a right for."""
        return _many(self._client.get("/v1/apps"))

    def app(self, app_uuid: UUID) -> Json:
        """One app."""
        return _one(self._client.get(f"/v1/apps/{app_uuid}"))

    def add_app(self, name: str) -> Json:
        """Adds an app with its first key pair."""
        return _one(self._client.send("POST", "/v1/apps", {"name": name}))

    def app_keys(self, app_uuid: UUID) -> list[Json]:
        """Public halves of an app's key pairs."""
        return _many(self._client.get(f"/v1/apps/{app_uuid}/keys"))

    def add_app_key(
        self, app_uuid: UUID, *, curve: str = "P-256", private: str | None = None
    ) -> Json:
        """Adds a key pair."""
        body = {"curve": curve, "private": private}
        return _one(self._client.send("POST", f"/v1/apps/{app_uuid}/keys", body))

    def enclaves(self, app_uuid: UUID) -> list[Json]:
        """Enclaves of an app."""
        return _many(self._client.get(f"/v1/apps/{app_uuid}/enclaves"))

    def enclave(self, uuid: UUID) -> Json:
        """One enclave."""
        return _one(self._client.get(f"/v1/enclaves/{uuid}"))

    def add_enclave(
        self,
        app_uuid: UUID,
        name: str,
        *,
        uuid: UUID | None = None,
        debug: bool = False,
        signers: Sequence[str] = (),
    ) -> Json:
        """Registers an enclave."""
        body = {
            "name": name,
            "uuid": None if uuid is None else str(uuid),
            "debug": debug,
            "signers": list(signers),
        }
        return _one(self._client.send("POST", f"/v1/apps/{app_uuid}/enclaves", body))

    def set_accepts_debug(self, uuid: UUID, *, accepts: bool) -> Json:
        """Whether a development enclave may have zero PCRs."""
        body = {"accepts_debug": accepts}
        return _one(self._client.send("PATCH", f"/v1/enclaves/{uuid}", body, may_repeat=True))

    def set_max_boots(self, uuid: UUID, count: int | None) -> Json:
        """How often an enclave may run at one time."""
        body = {"max_boots": count}
        return _one(self._client.send("PATCH", f"/v1/enclaves/{uuid}", body, may_repeat=True))

    def delete_enclave(self, uuid: UUID) -> None:
        """Removes an enclave."""
        self._client.send("DELETE", f"/v1/enclaves/{uuid}")

    def deployments(self, enclave_uuid: UUID) -> list[Json]:
        """Deployments of an enclave."""
        return _many(self._client.get(f"/v1/enclaves/{enclave_uuid}/deployments"))

    def add_deployment(
        self,
        enclave_uuid: UUID,
        pcrs: Mapping[str, str],
        *,
        ends_others: bool = False,
        until: dt.datetime | None = None,
    ) -> Json:
        """Registers an image; the same again is the same deployment, so it may be repeated."""
        body = {
            "pcrs": dict(pcrs),
            "ends_others": ends_others,
            "until": None if until is None else until.astimezone(dt.UTC).isoformat(),
        }
        path = f"/v1/enclaves/{enclave_uuid}/deployments"
        return _one(self._client.send("POST", path, body, may_repeat=True))

    def end_deployment(self, enclave_uuid: UUID, deployment_id: str) -> None:
        """Ends a deployment."""
        path = f"/v1/enclaves/{enclave_uuid}/deployments/{part(deployment_id)}"
        self._client.send("DELETE", path, may_repeat=True)

    def api_keys(self, app_uuid: UUID) -> list[Json]:
        """API keys of an app."""
        return self._all(f"/v1/apps/{app_uuid}/api-keys")

    def create_api_key(
        self, app_uuid: UUID, name: str, *, scopes: Sequence[str], not_after: dt.datetime | None
    ) -> Json:
        """Makes an API key."""
        path = f"/v1/apps/{app_uuid}/api-keys"
        return _one(self._client.send("POST", path, _new_key(name, scopes, not_after)))

    def revoke_api_key(self, app_uuid: UUID, key_id: str) -> Json:
        """Ends an API key."""
        path = f"/v1/apps/{app_uuid}/api-keys/{part(key_id)}"
        return _one(self._client.send("DELETE", path, may_repeat=True))

    def variables(self, enclave_uuid: UUID) -> list[Json]:
        """Variables of an enclave."""
        return _many(self._client.get(f"/v1/enclaves/{enclave_uuid}/variables"))

    def variable(self, enclave_uuid: UUID, name: str) -> Json:
        """One variable."""
        return _one(self._client.get(f"/v1/enclaves/{enclave_uuid}/variables/{part(name)}"))

    def set_variables(self, enclave_uuid: UUID, variables: Sequence[Json]) -> None:
        """Sets variables, all of them or none."""
        path = f"/v1/enclaves/{enclave_uuid}/variables"
        self._client.send("PUT", path, {"variables": list(variables)}, may_repeat=True)

    def delete_variable(self, enclave_uuid: UUID, name: str) -> None:
        """Removes a variable."""
        self._client.send("DELETE", f"/v1/enclaves/{enclave_uuid}/variables/{part(name)}")

    def service_keys(self) -> list[str]:
        """Public halves of the service keys in use."""
        return _texts(self._client.get("/v1/service-keys"))

    def add_service_key(self) -> list[str]:
        """Adds a service key."""
        return _texts(self._client.send("POST", "/v1/service-keys"))

    def retire_service_key(self, public: str) -> list[str]:
        """Ends a service key."""
        return _texts(self._client.send("DELETE", f"/v1/service-keys/{part(public)}"))

    def tokens(self) -> list[Json]:
        """Tokens of the platform."""
        return self._all("/v1/tokens")

    def create_token(
        self, name: str, *, scopes: Sequence[str], not_after: dt.datetime | None
    ) -> Json:
        """Makes a token."""
        return _one(self._client.send("POST", "/v1/tokens", _new_key(name, scopes, not_after)))

    def revoke_token(self, token_id: str) -> Json:
        """Ends a token."""
        return _one(self._client.send("DELETE", f"/v1/tokens/{part(token_id)}", may_repeat=True))

    def activity(self, *, limit: int, before: int | None = None) -> list[Json]:
        """What changed, newest first."""
        return _many(self._client.get("/v1/activity", limit=limit, before=before))

    def releases(self, enclave_uuid: UUID, *, limit: int, before: int | None = None) -> list[Json]:
        """Bundles that were released to an enclave, and refusals, newest first."""
        path = f"/v1/enclaves/{enclave_uuid}/releases"
        return _many(self._client.get(path, limit=limit, before=before))

    def events(self, enclave_uuid: UUID, *, limit: int, before: int | None = None) -> list[Json]:
        """What hosts reported of an enclave, newest first."""
        path = f"/v1/enclaves/{enclave_uuid}/events"
        return _many(self._client.get(path, limit=limit, before=before))

    def _all(self, path: str) -> list[Json]:
        """A list that comes in pages."""
        found: list[Json] = []
        while True:
            after = str(found[-1].get("id")) if found else None
            page = _many(self._client.get(path, limit=PAGE, after=after))
            found += page
            if len(page) < PAGE:
                return found


def _new_key(name: str, scopes: Sequence[str], not_after: dt.datetime | None) -> Json:
    expires = None if not_after is None else not_after.astimezone(dt.UTC).isoformat()
    return {"name": name, "scopes": list(scopes), "expires": expires}


def _texts(found: Any) -> list[str]:  # noqa: ANN401 - any JSON
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise TransportError("the platform's answer is not a list of texts")
    return found


def _one(found: Any) -> Json:  # noqa: ANN401 - any JSON
    if not isinstance(found, dict):
        raise TransportError("the platform's answer is not an object")
    return found


def _many(found: Any) -> list[Json]:  # noqa: ANN401 - any JSON
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise TransportError("the platform's answer is not a list of objects")
    return found


PAGE = 1000  # the most that the server gives at once
