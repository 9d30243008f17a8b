"""A page of the API for people, made from its OpenAPI document: no script, nothing from outside."""

import html
from typing import Any

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code,pre{font:13px/1.5 ui-monospace,monospace}pre{background:#8881;padding:1em;overflow:auto}"
    "h2{margin-top:2.5rem;text-transform:capitalize}h3{margin-bottom:0}"
    "table{border-collapse:collapse}td{border-top:1px solid #8884;padding:.2rem 1rem .2rem 0;"
    "vertical-align:top}"
)


def render(document: dict[str, Any]) -> str:
    """The whole page."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f"<title>{_text(document['info']['title'])}</title><style>{STYLE}</style>",
        f"<h1>{_text(document['info']['title'])}</h1>",
        f"<p>{_text(document['info'].get('description', ''))}</p>",
        "<p>For programs: <a href=/openapi.json>openapi.json</a>.</p>",
    ]
    schemas = document.get("components", {}).get("schemas", {})
    for tag in _tags(document):
        parts.append(f"<h2>{_text(tag)}</h2>")
        parts += [
            _call(path, method, call, schemas)
            for path, method, call in _calls(document)
            if _tag(call) == tag
        ]
    return "".join(parts)


def _calls(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, call)
        for path, methods in document["paths"].items()
        for method, call in methods.items()
    ]


def _tags(document: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(_tag(call) for _, _, call in _calls(document)))


def _tag(call: dict[str, Any]) -> str:
    return str((call.get("tags") or ["server"])[0])


def _call(path: str, method: str, call: dict[str, Any], schemas: dict[str, Any]) -> str:
    parts = [
        f"<h3><code>{_text(method.upper())} {_text(path)}</code></h3>",
        f"<p>{_text(call.get('description', ''))}</p>",
    ]
    rows = [
        (f"{one['name']} ({one['in']})", _kind(one.get("schema", {})))
        for one in call.get("parameters", [])
    ]
    content = call.get("requestBody", {}).get("content", {}).get("application/json", {})
    rows += _fields(content.get("schema", {}), schemas, "body")
    for status, answer in call.get("responses", {}).items():
        given = answer.get("content", {}).get("application/json", {}).get("schema", {})
        if status.startswith("2"):
            rows += _fields(given, schemas, f"answer {status}") or [(f"answer {status}", "nothing")]
    shown = "".join(f"<tr><td><code>{_text(a)}</code><td>{_text(b)}" for a, b in rows)
    return "".join(parts) + (f"<table>{shown}</table>" if shown else "")


def _fields(schema: dict[str, Any], schemas: dict[str, Any], where: str) -> list[tuple[str, str]]:
    if schema.get("type") == "array":
        return _fields(schema.get("items", {}), schemas, f"{where}, each")
    found = schemas.get(str(schema.get("$ref", "")).rpartition("/")[2], schema)
    needed = found.get("required", [])
    return [
        (f"{where}: {name}", _kind(one) + ("" if name in needed else ", optional"))
        for name, one in found.get("properties", {}).items()
    ]


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    parts = [str(schema.get("type", "any"))]
    if "items" in schema:
        parts.append(f"of {_kind(schema['items'])}")
    parts += [
        f"{word} {schema[key]}"
        for key, word in (
            ("format", "as"),
            ("minimum", "from"),
            ("maximum", "to"),
            ("maxLength", "at most"),
            ("maxItems", "at most"),
        )
        if key in schema
    ]
    if "enum" in schema:
        parts.append(" | ".join(str(one) for one in schema["enum"]))
    if "description" in schema:
        parts.append(f"({schema['description']})")
    return " ".join(parts)


def _text(value: object) -> str:
    return html.escape(str(value))
