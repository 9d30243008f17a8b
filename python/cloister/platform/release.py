"""Whether secrets are released: decisions over what a document proves and what is registered.

Nothing here reads a clock, a database or a network. :mod:`cloister.attest` proves that a document
is genuine and has registered measurements; the checks here are about *this* enclave and this
request. Each refusal has a message of its own, and none repeats text that the peer chose.

The checks are those of wire.md, section 3.
"""

import datetime as dt
import hmac
from collections.abc import Sequence

from cloister import attest
from cloister.errors import (
    AttestationError,
    DebugEnclave,
    MeasurementMismatch,
    ReleaseRefused,
)
from cloister.platform.clock import to_ms
from cloister.platform.records import DeploymentRecord, EnclaveRecord
from cloister.platform.tables import ChallengeRow
from cloister.platform.trust_class import TrustClass


def verified_claims(
    document: bytes,
    enclave: EnclaveRecord,
    deployments: Sequence[DeploymentRecord],
    *,
    development_anchor: attest.TrustAnchor | None,
    now: dt.datetime,
) -> attest.Claims:
    """What the document proves under the trust anchor of the enclave's record.

    Its PCR 0, 1 and 2 are those of an active deployment; :func:`matching_deployment` judges the
    other registers.

    Args:
        document: ``COSE_Sign1``, raw bytes.
        enclave: The enclave's record, which names the class of its anchor.
        deployments: Its deployments.
        development_anchor: The development root of this machine, for class development alone.
        now: The platform's time.

    Raises:
        ReleaseRefused: No active deployment; class development without a development root; the
            document does not verify under the record's anchor or is older than
            :data:`MAX_DOCUMENT_AGE`; it is of a debug enclave and the record is not; or no active
            deployment has its registers.
    """
    now_ms = to_ms(now)
    measured = [_measured(one) for one in deployments if one.is_active(now_ms)]
    if not measured:
        raise ReleaseRefused("the enclave has no active deployment")
    anchor = attest.TrustAnchor.aws_nitro()
    if enclave.trust_class is TrustClass.DEVELOPMENT:
        if development_anchor is None:
            raise ReleaseRefused("the enclave is of class `development` and this platform is not")
        anchor = development_anchor
    policy = attest.Policy(
        measurements=measured,
        trust_anchor=anchor,
        max_age=MAX_DOCUMENT_AGE,
        dangerous_accept_debug=enclave.accepts_debug,
    )
    try:
        return attest.verify(document, policy, now=now)
    except DebugEnclave as problem:
        raise ReleaseRefused(
            "the document is of a debug enclave (its PCR0 is zero) and this enclave is not"
            " registered as debug"
        ) from problem
    except MeasurementMismatch as problem:
        raise ReleaseRefused(
            "no active deployment of this enclave has the document's PCRs",
            hint="register the image that runs, or run the image that is registered",
        ) from problem
    except AttestationError as problem:
        raise ReleaseRefused(
            f"the attestation document is refused ({type(problem).__name__}): {problem.message}",
            hint=problem.hint,
        ) from problem


def check_purpose(claims: attest.Claims) -> bytes:
    """The boot key of a document that was made to be provisioned by.

    Returns:
        The X25519 key that the bundle will be sealed to, 32 bytes.

    Raises:
        ReleaseRefused: The document was made for something else, as those of the internal API
            always are (T-21), or carries no such key.
    """
    if claims.user_data is None or not hmac.compare_digest(claims.user_data, PROVISION_USER_DATA):
        raise ReleaseRefused(
            "the document was not made for provisioning: its `user_data` is not the one that only"
            " the data plane asks for"
        )
    if claims.public_key is None or len(claims.public_key) != BOOT_KEY_BYTES:
        raise ReleaseRefused(
            f"the document carries no X25519 key: `public_key` is not {BOOT_KEY_BYTES} bytes long"
        )
    return claims.public_key


def check_challenge(challenge: ChallengeRow | None, enclave: EnclaveRecord, *, now_ms: int) -> None:
    """Whether a challenge that came back may be used by this enclave at this time.

    Raises:
        ReleaseRefused: Not a challenge of this platform, of another enclave, used, or expired.
    """
    if challenge is None:
        raise ReleaseRefused("the document's nonce is not a challenge of this platform")
    if challenge.enclave_uuid != enclave.uuid:
        raise ReleaseRefused("the challenge was issued to another enclave")
    if challenge.used_ms is not None:
        raise ReleaseRefused("the challenge was used before")
    if not 0 <= now_ms - challenge.issued_ms <= CHALLENGE_LIFE_MS:
        raise ReleaseRefused(
            f"the challenge has expired: it is valid for {CHALLENGE_LIFE_MS // 1000} s"
        )


def matching_deployment(
    claims: attest.Claims,
    enclave: EnclaveRecord,
    deployments: Sequence[DeploymentRecord],
    *,
    now_ms: int,
) -> DeploymentRecord:
    """The active deployment that has every register of the document right.

    Raises:
        ReleaseRefused: An enclave of class debug that is not a debug enclave; an image that none
            of the enclave's signers signed; a debug enclave on another parent instance; or another
            register that no active deployment has.
    """
    if enclave.trust_class is TrustClass.DEBUG and not claims.is_debug:
        raise ReleaseRefused(
            "the enclave is registered as debug and the document is of one with measured code"
        )
    if enclave.signers and claims.pcrs.get(8) not in enclave.signers:
        raise ReleaseRefused("the image is not signed by a signer of this enclave (PCR8)")
    measured = [
        deployment
        for deployment in deployments
        if deployment.is_active(now_ms) and _has(claims, deployment, MEASURED)
    ]
    for deployment in measured:
        if _has(claims, deployment, tuple(deployment.pcrs)):
            return deployment
    if claims.is_debug and measured:
        raise ReleaseRefused(
            "the debug enclave runs on another parent instance than the one that is pinned (PCR4)"
        )
    raise ReleaseRefused("no active deployment of this enclave has all of the document's PCRs")


def check_room(enclave: EnclaveRecord, running: int) -> None:
    """Whether another boot of this enclave may be released to.

    Args:
        enclave: The enclave's record.
        running: Other boots whose bundle has not ended.

    Raises:
        ReleaseRefused: Its owner allows no more.
    """
    if enclave.max_boots is not None and running >= enclave.max_boots:
        often = "once" if running == 1 else f"{running} times"
        raise ReleaseRefused(
            f"the enclave runs {often}, the most that its owner allows",
            hint="the place of one that has ended is free when its bundle ends, within 15 minutes:"
            " the platform takes no host's word for an end",
        )


def _measured(deployment: DeploymentRecord) -> attest.Measurements:
    return attest.Measurements({index: deployment.pcrs[index] for index in MEASURED})


def _has(claims: attest.Claims, deployment: DeploymentRecord, indexes: Sequence[int]) -> bool:
    """Whether the document has the deployment's value in each of these registers.

    A register that a document leaves out is not the same as one that holds zeros.
    """
    return all(claims.pcrs.get(index) == deployment.pcrs[index] for index in indexes)


PROVISION_USER_DATA = b"\xffcloister/provision/v1"
BOOT_KEY_BYTES = 32
CHALLENGE_LIFE_MS = 60_000
MAX_DOCUMENT_AGE = dt.timedelta(minutes=5)
MEASURED = (0, 1, 2)  # registers that every deployment names (see Registry.add_deployment)
