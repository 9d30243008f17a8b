"""Bodies of the platform's API: what is taken, within which limits, and what is given.

Owners' bodies with unknown keys are refused: an option that is misspelt must not be left out.
Hosts' bodies may say more than this version knows (wire.md, section 6).
"""

import datetime as dt
from typing import Annotated, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
)

from cloister.platform import registry


def _in_utc(moment: dt.datetime) -> dt.datetime:
    try:
        return moment.astimezone(dt.UTC)
    except OverflowError:  # as of 9999-12-31T23:59:59-01:00
        raise ValueError("the time is not in the calendar in UTC") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
# What a name may be is said where it is checked, in the same words as without a server.
Name = Annotated[StrictStr, Field(description="1 to 63 characters.")]
Hex = Annotated[StrictStr, Field(max_length=128)]
Scopes = Annotated[list[Annotated[StrictStr, Field(max_length=80)]], Field(max_length=64)]


class FromOwner(BaseModel):
    """A body that an owner sends."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class FromHost(BaseModel):
    """A body that a host sends, about one enclave."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    enclave: UUID


class Provision(FromHost):
    """Asks for the first bundle of a boot."""

    attestation_doc: Annotated[
        StrictStr, Field(max_length=20_000, description="COSE_Sign1, base64.")
    ]


class Event(FromHost):
    """Something that happened to an enclave."""

    kind: Annotated[StrictStr, Field(max_length=256)]
    message: Annotated[StrictStr, Field(max_length=4096)]


class ObjectHead(FromHost):
    """Which sealed object is the current one of its name. Binary values are hexadecimal."""

    boot_key: Annotated[StrictStr, Field(pattern="^[0-9a-f]{64}$")]
    name: Annotated[StrictStr, Field(max_length=128)]
    version: Annotated[int, Field(strict=True, gt=0, lt=1 << 63)]
    sha256: Annotated[StrictStr, Field(pattern="^[0-9a-f]{64}$")]
    proof: Annotated[StrictStr, Field(pattern="^[0-9a-f]{64}$")]


class NewApp(FromOwner):
    """An app to be added."""

    name: Name


class NewAppKey(FromOwner):
    """A key pair to be added."""

    curve: Literal["P-256", "secp256k1"] = "P-256"
    private: Annotated[
        StrictStr | None,
        Field(max_length=64, description="Private half of a pair that exists, base64."),
    ] = None


class NewEnclave(FromOwner):
    """An enclave to be registered."""

    name: Name
    uuid: UUID | None = None
    debug: StrictBool = False
    signers: Annotated[list[Hex], Field(max_length=16, description="PCR8 values.")] = []


class EnclaveChange(FromOwner):
    """What may be changed of an enclave; what is left out stays."""

    accepts_debug: Annotated[StrictBool, Field(description="Of a development enclave.")] = False
    max_boots: Annotated[StrictInt | None, Field(description="At one time; null: any number.")] = (
        None
    )

    @property
    def named(self) -> registry.EnclaveChange:
        """What the body names."""
        change: registry.EnclaveChange = {}
        if "accepts_debug" in self.model_fields_set:
            change["accepts_debug"] = self.accepts_debug
        if "max_boots" in self.model_fields_set:
            change["max_boots"] = self.max_boots
        return change


class NewDeployment(FromOwner):
    """An image to be registered."""

    pcrs: Annotated[
        dict[Annotated[StrictStr, Field(max_length=2)], Hex],
        Field(max_length=32, description="Registers by index."),
    ]
    ends_others: StrictBool = False
    until: Moment | None = None


class NewKey(FromOwner):
    """An API key or a token to be made."""

    name: Name
    scopes: Scopes
    expires: Moment | None = None


class NewVariable(FromOwner):
    """A variable to be set."""

    name: Annotated[StrictStr, Field(min_length=1, max_length=255)]
    value: Annotated[StrictStr, Field(max_length=180_000, description="Bytes, base64.")]
    secret: StrictBool


class NewVariables(FromOwner):
    """Variables to be set together."""

    variables: Annotated[list[NewVariable], Field(min_length=1, max_length=1024)]


class Challenge(BaseModel):
    """A challenge, base64: valid once, for 60 s."""

    challenge: str


class Bundle(BaseModel):
    """A bundle, sealed to the boot that asked; base64."""

    bundle: str


class DesiredDeployment(BaseModel):
    """An image that is released to. Registers are hexadecimal."""

    id: str
    pcrs: dict[str, str]


class Desired(BaseModel):
    """What a host is to run of an enclave, the newest first."""

    deployments: list[DesiredDeployment]


class Recorded(BaseModel):
    """Whether a head was recorded; if not, another one is, as new or newer."""

    recorded: bool


class AppShown(BaseModel):
    """An app. Keys are hexadecimal."""

    uuid: UUID
    name: str
    team_uuid: UUID
    created: str
    service_keys: list[str]
    public_key: str | None


class AppKeyShown(BaseModel):
    """The public half of a key pair, hexadecimal."""

    id: str
    curve: str
    public: str
    created: str


class AppKeyMade(BaseModel):
    """The public half of a new key pair."""

    curve: str
    public: str


class EnclaveShown(BaseModel):
    """An enclave, what its image has to trust, and what its clients encrypt to."""

    uuid: UUID
    name: str
    app_uuid: UUID
    team_uuid: UUID
    trust_class: str
    accepts_debug: bool
    bundle_version: int
    max_boots: int | None
    signers: list[str]
    service_keys: list[str]
    app_public_key: str


class DeploymentShown(BaseModel):
    """A registered image."""

    id: str
    enclave_uuid: UUID
    pcrs: dict[str, str]
    active: bool
    created: str
    until: str | None


class KeyShown(BaseModel):
    """An API key or a token, without itself."""

    id: str
    name: str
    scopes: list[str]
    state: Literal["active", "expired", "revoked"]
    created: str
    expires: str | None
    revoked: str | None


class ApiKeyMade(KeyShown):
    """An API key at the one moment it is shown."""

    api_key: str


class TokenMade(KeyShown):
    """A token at the one moment it is shown."""

    token: str


class VariableShown(BaseModel):
    """A variable; ``value`` is base64, and absent for a secret."""

    name: str
    secret: bool
    updated: str
    value: str | None


class ActivityShown(BaseModel):
    """Something that was changed."""

    id: int
    at: str
    kind: str
    subject: str
    message: str


class ReleaseShown(BaseModel):
    """A bundle that was released, or why one was not."""

    id: int
    at: str
    released: bool
    reason: str
    deployment: str | None
    bundle_version: int | None
    module_id: str | None


class EventShown(BaseModel):
    """What a host said; nobody vouches for it."""

    id: int
    at: str
    kind: str
    message: str


class WhoAmI(BaseModel):
    """The token that asks."""

    id: str
    name: str
    scopes: list[str]
    trust_class: str


class Problem(BaseModel):
    """An error: a name for programs, a sentence for people, and what to do about it."""

    code: str
    message: str
    hint: str | None


class Error(BaseModel):
    """What every refusal looks like."""

    error: Problem
