"""The text of a new ``enclave.toml``: what was asked for, and a comment for each part."""

import uuid

import tomlkit

from cloister.config import EnclaveToml


def text(toml: EnclaveToml) -> str:
    """The file for these settings; what has its default is left to ``enclave.toml.example``."""
    lines = [
        "# Settings of an enclave. Every setting, with unit and default: enclave.toml.example",
        *_pairs(version=toml.version, name=toml.name),
        *_pairs(uuid=toml.uuid, app_uuid=toml.app_uuid, team_uuid=toml.team_uuid),
        *_pairs(debug=toml.debug, dockerfile=toml.dockerfile),
        "",
        "# Measured: a change here changes the PCRs at the next `cloister build`.",
        *_pairs(
            api_key_auth=toml.api_key_auth,
            trx_logging=toml.trx_logging,
            tls_termination=toml.tls_termination,
            trusted_headers=list(toml.trusted_headers),
        ),
    ]
    if toml.healthcheck is not None and toml.healthcheck.port is None:
        lines += _pairs(healthcheck=toml.healthcheck.path)
    elif toml.healthcheck is not None:
        inline = tomlkit.inline_table()
        inline.update({"path": toml.healthcheck.path, "port": toml.healthcheck.port})
        lines += _pairs(healthcheck=inline)
    if toml.service.port is not None:
        lines += ["", "[service]", *_pairs(port=toml.service.port)]
    lines += [
        "",
        "# What may leave the enclave; nothing may without it.",
        "[egress]",
        *_pairs(enabled=toml.egress.enabled),
    ]
    if toml.egress.enabled:
        lines += _pairs(destinations=list(toml.egress.destinations))
    lines += [
        "",
        "# Whose bundles of keys and secrets the enclave believes: base64, Ed25519.",
        "[trust]",
        *_pairs(service_keys=list(toml.trust.service_keys)),
        "",
        "# Not measured.",
        "[scaling]",
        *_pairs(desired_replicas=toml.scaling.desired_replicas),
        "",
        "[resources]",
        *_pairs(cpus=toml.resources.cpus, memory="1GiB"),
        "",
        "# Signs the image; PCR8 is the hash of the certificate.",
        "[signing]",
        *_pairs(certPath=toml.signing.cert_path, keyPath=toml.signing.key_path),
        "",
    ]
    return "\n".join(lines)


def _pairs(**values: object) -> list[str]:
    shown = {
        key: str(value) if isinstance(value, uuid.UUID) else value for key, value in values.items()
    }
    return [f"{key} = {tomlkit.item(value).as_string()}" for key, value in shown.items()]
