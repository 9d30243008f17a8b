"""What owners and their tools ask: the registry, keys, variables, tokens, and what happened.

Each call names the right it needs; :mod:`cloister.platform.server.access` compares.
"""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from cloister.platform.owner import Json, Owner
from cloister.platform.server import models
from cloister.platform.server.access import (
    Caller,
    TheParts,
    forbidden,
    of_app,
    of_enclave,
    owner_only,
)

router = APIRouter()

Everything = Annotated[Owner, Depends(owner_only)]
ReadsApp = Annotated[Owner, Depends(of_app("read"))]
ManagesApp = Annotated[Owner, Depends(of_app("manage"))]
Reads = Annotated[Owner, Depends(of_enclave("read"))]
Deploys = Annotated[Owner, Depends(of_enclave("deploy"))]
Manages = Annotated[Owner, Depends(of_enclave("manage"))]
Limit = Annotated[int, Query(ge=1, le=1000)]
Before = Annotated[int | None, Query(ge=1, lt=1 << 63, description="`id` of the page before.")]

After = Annotated[
    str | None, Query(pattern="^[0-9a-f]{16}$", description="`id` that the page before ended with.")
]


@router.get("/v1/token", tags=["tokens"])
def who_am_i(token: Caller, parts: TheParts) -> models.WhoAmI:
    """The token that asks."""
    return models.WhoAmI(
        id=token.id,
        name=token.name,
        scopes=list(token.scopes),
        trust_class=parts.database.trust_class.value,
    )


@router.get("/v1/apps", tags=["apps"], response_model=list[models.AppShown])
def apps(token: Caller, parts: TheParts) -> list[Json]:
    """Apps that the token has a right for; a host's token has one for none, and is refused."""
    if token.is_owner:
        return parts.owner.apps()
    if not token.apps:
        raise forbidden(token)
    found = parts.owner.apps()
    return [app for app in found if UUID(app["uuid"]) in token.apps]


@router.post("/v1/apps", tags=["apps"], status_code=201, response_model=models.AppShown)
def add_app(asked: models.NewApp, owner: Everything) -> Json:
    """Adds an app with its first key pair."""
    return owner.add_app(asked.name)


@router.get("/v1/apps/{app}", tags=["apps"], response_model=models.AppShown)
def app(app: UUID, owner: ReadsApp) -> Json:
    """One app."""
    return owner.app(app)


@router.get("/v1/apps/{app}/keys", tags=["apps"], response_model=list[models.AppKeyShown])
def app_keys(app: UUID, owner: ReadsApp) -> list[Json]:
    """Public halves of the app's key pairs."""
    return owner.app_keys(app)


@router.post(
    "/v1/apps/{app}/keys", tags=["apps"], status_code=201, response_model=models.AppKeyMade
)
def add_app_key(app: UUID, asked: models.NewAppKey, owner: ManagesApp) -> Json:
    """Adds a key pair, or one that exists."""
    return owner.add_app_key(app, curve=asked.curve, private=asked.private)


@router.get("/v1/apps/{app}/enclaves", tags=["enclaves"], response_model=list[models.EnclaveShown])
def enclaves(app: UUID, owner: ReadsApp) -> list[Json]:
    """Enclaves of an app."""
    return owner.enclaves(app)


@router.post(
    "/v1/apps/{app}/enclaves",
    tags=["enclaves"],
    status_code=201,
    response_model=models.EnclaveShown,
)
def add_enclave(app: UUID, asked: models.NewEnclave, owner: ManagesApp) -> Json:
    """Registers an enclave."""
    return owner.add_enclave(
        app, asked.name, uuid=asked.uuid, debug=asked.debug, signers=asked.signers
    )


@router.get("/v1/enclaves/{enclave}", tags=["enclaves"], response_model=models.EnclaveShown)
def enclave(enclave: UUID, owner: Reads) -> Json:
    """One enclave."""
    return owner.enclave(enclave)


@router.patch("/v1/enclaves/{enclave}", tags=["enclaves"], response_model=models.EnclaveShown)
def change_enclave(enclave: UUID, asked: models.EnclaveChange, owner: Manages) -> Json:
    """Changes what is named of an enclave, all of it or nothing."""
    return owner.change_enclave(enclave, asked.named)


@router.delete("/v1/enclaves/{enclave}", tags=["enclaves"], status_code=204)
def delete_enclave(enclave: UUID, owner: Manages) -> None:
    """Removes an enclave that nothing is released to; its uuid is not registered again."""
    owner.delete_enclave(enclave)


@router.get(
    "/v1/enclaves/{enclave}/deployments",
    tags=["deployments"],
    response_model=list[models.DeploymentShown],
)
def deployments(enclave: UUID, owner: Reads) -> list[Json]:
    """Images of an enclave, oldest first."""
    return owner.deployments(enclave)


@router.post(
    "/v1/enclaves/{enclave}/deployments",
    tags=["deployments"],
    status_code=201,
    response_model=models.DeploymentShown,
)
def add_deployment(enclave: UUID, asked: models.NewDeployment, owner: Deploys) -> Json:
    """Registers an image and makes it active."""
    return owner.add_deployment(
        enclave, asked.pcrs, ends_others=asked.ends_others, until=asked.until
    )


@router.delete(
    "/v1/enclaves/{enclave}/deployments/{deployment}", tags=["deployments"], status_code=204
)
def end_deployment(enclave: UUID, deployment: str, owner: Deploys) -> None:
    """Ends a deployment: nothing more is released to its enclaves."""
    owner.end_deployment(enclave, deployment)


@router.get("/v1/apps/{app}/api-keys", tags=["API keys"], response_model=list[models.KeyShown])
def api_keys(app: UUID, owner: ReadsApp, limit: Limit = 100, after: After = None) -> list[Json]:
    """API keys of an app, without the keys."""
    return owner.api_keys(app, limit=limit, after=after)


@router.post(
    "/v1/apps/{app}/api-keys",
    tags=["API keys"],
    status_code=201,
    response_model=models.ApiKeyMade,
)
def create_api_key(app: UUID, asked: models.NewKey, owner: ManagesApp) -> Json:
    """Makes an API key; it is shown in this answer alone."""
    return owner.create_api_key(app, asked.name, scopes=asked.scopes, not_after=asked.expires)


@router.delete(
    "/v1/apps/{app}/api-keys/{key_id}", tags=["API keys"], response_model=models.KeyShown
)
def revoke_api_key(app: UUID, key_id: str, owner: ManagesApp) -> Json:
    """Ends an API key."""
    return owner.revoke_api_key(app, key_id)


@router.get(
    "/v1/enclaves/{enclave}/variables",
    tags=["variables"],
    response_model=list[models.VariableShown],
)
def variables(enclave: UUID, token: Caller, owner: Reads) -> list[Json]:
    """Variables of an enclave. Values need the right ``manage``; secrets have none to show."""
    shown = owner.variables(enclave)
    app_uuid = owner.app_of(enclave)
    if app_uuid is None or not token.may("manage", app_uuid):
        return [one | {"value": None} for one in shown]
    return shown


@router.put("/v1/enclaves/{enclave}/variables", tags=["variables"], status_code=204)
def set_variables(enclave: UUID, asked: models.NewVariables, owner: Manages) -> None:
    """Sets variables, all of them or none; the value of a secret is a ciphertext."""
    values: list[dict[str, Any]] = [one.model_dump() for one in asked.variables]
    owner.set_variables(enclave, values)


@router.get(
    "/v1/enclaves/{enclave}/variables/{name}",
    tags=["variables"],
    response_model=models.VariableShown,
)
def variable(enclave: UUID, name: str, owner: Manages) -> Json:
    """One variable."""
    return owner.variable(enclave, name)


@router.delete("/v1/enclaves/{enclave}/variables/{name}", tags=["variables"], status_code=204)
def delete_variable(enclave: UUID, name: str, owner: Manages) -> None:
    """Removes a variable."""
    owner.delete_variable(enclave, name)


@router.get(
    "/v1/enclaves/{enclave}/releases",
    tags=["activity"],
    response_model=list[models.ReleaseShown],
)
def releases(enclave: UUID, owner: Reads, limit: Limit = 100, before: Before = None) -> list[Json]:
    """What was released to an enclave, and what was refused and why; newest first."""
    return owner.releases(enclave, limit=limit, before=before)


@router.get(
    "/v1/enclaves/{enclave}/events", tags=["activity"], response_model=list[models.EventShown]
)
def events(enclave: UUID, owner: Reads, limit: Limit = 100, before: Before = None) -> list[Json]:
    """What hosts reported of an enclave, newest first; nobody vouches for it."""
    return owner.events(enclave, limit=limit, before=before)


@router.get("/v1/activity", tags=["activity"], response_model=list[models.ActivityShown])
def activity(owner: Everything, limit: Limit = 100, before: Before = None) -> list[Json]:
    """What was changed, newest first."""
    return owner.activity(limit=limit, before=before)


@router.get("/v1/service-keys", tags=["service keys"])
def service_keys(owner: Everything) -> list[str]:
    """Public halves of the keys that sign bundles, hexadecimal; the first signs."""
    return owner.service_keys()


@router.post("/v1/service-keys", tags=["service keys"], status_code=201)
def add_service_key(owner: Everything) -> list[str]:
    """Adds one, for images that are built from here on."""
    return owner.add_service_key()


@router.delete("/v1/service-keys/{public}", tags=["service keys"])
def retire_service_key(public: str, owner: Everything) -> list[str]:
    """Ends one; images that do not know the next take no bundle from here on."""
    return owner.retire_service_key(public)


@router.get("/v1/tokens", tags=["tokens"], response_model=list[models.KeyShown])
def tokens(owner: Everything, limit: Limit = 100, after: After = None) -> list[Json]:
    """Tokens of this API, oldest first, without the tokens."""
    return owner.tokens(limit=limit, after=after)


@router.post("/v1/tokens", tags=["tokens"], status_code=201, response_model=models.TokenMade)
def create_token(asked: models.NewKey, owner: Everything) -> Json:
    """Makes a token; it is shown in this answer alone."""
    return owner.create_token(asked.name, scopes=asked.scopes, not_after=asked.expires)


@router.delete("/v1/tokens/{token_id}", tags=["tokens"], response_model=models.KeyShown)
def revoke_token(token_id: str, owner: Everything) -> Json:
    """Ends a token."""
    return owner.revoke_token(token_id)
