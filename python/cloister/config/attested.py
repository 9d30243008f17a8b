"""The attested configuration: what of ``enclave.toml`` goes into the image, and is measured.

It has exactly the names of `rust/wire`, ``config.rs``, which refuses an unknown one. Left out are
`attestation`, `signing`, `scaling`, `resources`, `kernel` and `dockerfile`: the PCRs would feed on
themselves, and scaling would change them.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cloister.config import ports
from cloister.errors import ConfigError

if TYPE_CHECKING:
    from cloister.config.schema import EnclaveToml


def attested(toml: "EnclaveToml", service_port: int | None) -> dict[str, Any]:
    """See :meth:`cloister.config.EnclaveToml.attested`."""
    missing = [name for name in ("uuid", "app_uuid", "team_uuid") if getattr(toml, name) is None]
    if not toml.trust.service_keys:
        missing.append("[trust] service_keys")
    if missing:
        raise ConfigError(
            f"{toml.path or 'enclave.toml'} lacks {', '.join(f'`{name}`' for name in missing)}",
            hint="`cloister init NAME` writes them",
        )
    port = toml.service.port or service_port or ports.DEFAULT_SERVICE
    ports.check(port, is_egress_on=toml.egress.enabled, what="the service port")
    return {
        "version": toml.version,
        "name": toml.name,
        "uuid": str(toml.uuid),
        "app_uuid": str(toml.app_uuid),
        "team_uuid": str(toml.team_uuid),
        "debug": toml.debug,
        "api_key_auth": toml.api_key_auth,
        "forward_api_key": toml.forward_api_key,
        "forward_proxy_protocol": toml.forward_proxy_protocol,
        "service": {"port": port, "protocol": toml.service.protocol},
        "egress": {
            "enabled": toml.egress.enabled,
            "destinations": list(toml.egress.destinations) if toml.egress.enabled else [],
            "allow_private": toml.egress.allow_private,
        },
        "healthcheck": dataclasses.asdict(toml.healthcheck) if toml.healthcheck else None,
        "acceptor": dataclasses.asdict(toml.acceptor),
        "limits": _limits(toml),
        "logs": {
            "trx_logging": toml.trx_logging,
            "trx_log_query": toml.trx_log_query,
            "trusted_headers": list(toml.trusted_headers),
        },
        "tls": {
            "termination": toml.tls_termination,
            "domains": list(toml.tls.domains),
            "acme": toml.tls.acme,
            "min_version": toml.tls.min_version,
            "dangerous_share_across_deployments": toml.tls.dangerous_share_across_deployments,
        },
        "env": dataclasses.asdict(toml.env),
        "attestation_cors": dataclasses.asdict(toml.attestation_cors),
        "trust": {"service_keys": list(toml.trust.service_keys)},
    }


def scheme(attested: Mapping[str, Any]) -> str:
    """How a client reaches an enclave of this attested configuration.

    ``https``; ``tls`` where no HTTP is inside; ``tcp`` where TLS, if any, is the application's.
    """
    if not attested["tls"]["termination"]:
        return "tcp"
    return "tls" if attested["service"]["protocol"] == "tcp" else "https"


def canonical_json(value: Any) -> bytes:  # noqa: ANN401 - any JSON
    """JSON in one spelling: sorted keys, no white space, UTF-8."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def _limits(toml: "EnclaveToml") -> dict[str, Any]:
    limits = dataclasses.asdict(toml.limits)
    limits["max_body"] = limits.pop("body")
    return limits
