"""Reading ``enclave.toml``: what is accepted, and how a refusal says where and what."""

import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.config import EnclaveToml, Limits, canonical_json, load, loads
from cloister.config.position import positions
from cloister.errors import ConfigError, MissingInput

VECTOR = pathlib.Path(__file__).parents[2] / "vectors" / "config" / "enclave.json"
WHOLE = """\
name = "hello"
uuid = "0d5a2a8e-6a51-4f3b-bf0f-4d8c3f0a9e33"
app_uuid = "5b1f6b0e-3f4b-4a63-9f60-0f2b7b6f7c11"
team_uuid = "a1a5b6de-0a0c-4c4b-8f0e-5a5f7f0f1d22"
trusted_headers = ["x-request-*"]
healthcheck = "/health"

[trust]
service_keys = ["11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]
"""


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        loads(text)
    return caught.value


def outcome(text: str) -> ConfigError | None:
    try:
        loads(text)
    except ConfigError as problem:
        return problem
    return None


def test_the_attested_part_is_what_the_enclave_reads() -> None:
    """The same vector is read by the Rust side, which refuses an unknown name."""
    attested = loads(WHOLE).attested()
    assert attested == json.loads(VECTOR.read_text())
    text = canonical_json(attested)
    assert json.loads(text) == attested
    assert text == json.dumps(attested, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("text", "place", "message", "hint"),
    [
        ('name = "a"\nfoo = 1', "2:1", "unknown setting 'foo' at the top", "known at the top: "),
        ('name = "a"\ntrustd_headers = []', "2:1", "'trustd_headers'", "`trusted_headers`"),
        ('name = "a"\n[limits]\n  bodyy = 3', "3:3", "in `[limits]`", "`body`"),
        ('name = "a"\nhead = 3', "2:1", "'head'", "belongs in `[limits]`"),
        ('name = "a"\n[tls]\nname = "b"', "3:1", "'name'", "stands at the top"),
        ('name = "a"\n[attestation]\nPCR3 = ""', "3:1", "'PCR3'", "did you mean `PCR"),
        ("debug = false", "1:1", "lacks `name`", ""),
        ("name = 3", "1:1", "expected a DNS label", ""),
        ('name = "Hello"', "1:1", "found the text 'Hello'", ""),
        ('name = "-a"', "1:1", "expected a DNS label", ""),
        ('name = "a"\ndebug = "yes"', "2:1", "expected true or false", "without quotes"),
        ('name = "a"\n[limits]\nhead = true', "3:1", "found true", ""),
        ('name = "a"\n[limits]\nhead = 12', "3:1", "from 1024 to 1048576", ""),
        ('name = "a"\n[limits]\nhead = "64KiB"', "3:1", "whole number of bytes", "number of bytes"),
        ('name = "a"\n[resources]\nmemory = "1 Gigabyte"', "3:1", 'such as "512MiB"', ""),
        ('name = "a"\n[resources]\nmemory = "1MiB"', "3:1", "from 64MiB", ""),
        ('name = "a"\n[egress]\ndestinations = [\n  "a.com",\n  "1.2.3.4.5"]', "5:3", "[1]", ""),
        ('name = "a"\ntrusted_headers = ["a", "Cookie"]', "2:25", "[1]", "secret"),
        ('name = "a"\ntrusted_headers = ["x*"]', "2:20", "[0]", "`-*`"),
        ('name = "a"\ntrusted_headers = ["a", "a"]', "2:25", "twice", ""),
        ('name = "a"\nhealthcheck = 3', "2:1", "expected a path or a table", ""),
        ('name = "a"\nhealthcheck = {path = "x"}', "2:16", "`healthcheck.path`", ""),
        ('name = "a"\nhealthcheck = {port = 80}', "2:1", "lacks `path`", ""),
        ('name = "a"\negress = true', "2:1", "expected a table", ""),
        ('name = "a"\n[service]\nprotocol = "h2"', "3:1", '"http1", "h2c", "tcp"', ""),
        ('name = "a"\n[trust]\nservice_keys = ["AAAA"]', "3:17", "32 bytes", "init"),
        ('name = "a"\n[trust]\nservice_keys = []', "3:1", "a list of 1 to 3", ""),
        ('name = "a"\nuuid = "x"', "2:1", "expected a uuid", ""),
        ('version = 0\nname = "a"', "1:1", "`version` is 0, this program reads version 1", ""),
        ('name = "a"\nversion = 2', "2:1", "`version` is 2", "newer cloister"),
        ('name = "a', "1:10", "expected TOML", "double quotes"),
        ('name = "a"\nname = "b"', "2:11", "expected TOML", ""),
        ('name = "a"\n[tls]\ndomains = ["Example.com"]', "3:12", "lower case", "lower case"),
        ('name = "a"\n[attestation_cors]\norigin = "https://a/b"', "3:1", "an origin", "no path"),
    ],
)
def test_a_refusal_says_where_what_and_why(text: str, place: str, message: str, hint: str) -> None:
    problem = refused(text)
    assert problem.message.startswith(f"enclave.toml:{place}: "), problem.message
    assert message in problem.message
    assert hint in (problem.hint or "")
    assert problem.exit_status == 78


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("tls_termination = false", "2:1", "`api_key_auth = false`"),
        ("tls_termination = false\napi_key_auth = false", "2:1", "`trx_logging = false`"),
        (
            'tls_termination=false\napi_key_auth=false\ntrx_logging=false\nhealthcheck="/h"',
            "5:1",
            "a port of its own",
        ),
        ("forward_proxy_protocol = true", "2:1", "`tls_termination = false`"),
        ('[service]\nprotocol = "tcp"', "3:1", "`api_key_auth = false`"),
        (
            'api_key_auth=false\nhealthcheck="/h"\n[service]\nprotocol="tcp"',
            "3:1",
            "a port of its own",
        ),
        ("[service]\nport = 9999", "3:1", "reserved by the internal API"),
        ("[service]\nport = 53\n[egress]\nenabled = true", "3:1", "reserved by DNS"),
        ("[service]\nport = 4444\n[egress]\nenabled = true", "3:1", "reserved by egress"),
        ('healthcheck = {path = "/", port = 9999}', "2:28", "reserved by the internal API"),
        (
            "[acceptor]\nmax_concurrent_connections = 10\nmax_concurrent_handshakes = 11",
            "4:1",
            "more than",
        ),
        ('[signing]\ncertPath = "c.pem"', "2:1", "lacks `keyPath`"),
        ("[tls]\nacme = true", "3:1", "needs `domains`"),
        ('[tls]\ndomains = ["10.0.0.1"]', "3:12", "an address"),
    ],
)
def test_rules_between_settings(text: str, place: str, message: str) -> None:
    problem = refused(f'name = "a"\n{text}')
    assert problem.message.startswith(f"enclave.toml:{place}: "), problem.message
    assert message in problem.message


@pytest.mark.parametrize(
    "text",
    [
        (
            "tls_termination = false\napi_key_auth = false\ntrx_logging = false\n"
            'forward_proxy_protocol = true\nhealthcheck = {path = "/h", port = 8009}'
        ),
        '[service]\nport = 53\n[egress]\nenabled = false\ndestinations = ["*.a.com:1-2"]',
        'api_key_auth = false\n[service]\nprotocol = "tcp"',
        '[tls]\nacme = true\ndomains = ["a.example.com"]\nmin_version = "1.3"',
        "[resources]\nmemory = 1073741824\n[limits]\nbody = 1",
        'trusted_headers = ["x-a", "x-b-*"]',
        "[acceptor]\nmax_concurrent_connections = 10\nmax_concurrent_handshakes = 10",
    ],
)
def test_what_the_rules_allow(text: str) -> None:
    """The twin of the tests above: they do not refuse everything."""
    assert loads(f'name = "a"\n{text}').name == "a"


@pytest.mark.parametrize(
    ("destination", "is_right"),
    [
        ("*", True),
        ("*:443", True),
        ("a.example.com", True),
        ("a.example.com.", True),
        ("*.example.com:443", True),
        ("*.example.com:8000-8010", True),
        ("bücher.example", True),
        ("10.0.0.0/8", True),
        ("192.0.2.1:80", True),
        ("2001:db8::/32", True),
        ("[2001:db8::1]:443", True),
        ("a.*.com", False),
        ("**.com", False),
        ("a..com", False),
        ("a.com:0", False),
        ("a.com:70000", False),
        ("a.com:20-10", False),
        ("a.com:", False),
        ("10.0.0.1/8", False),
        ("256.0.0.1", False),
        ("https://a.com", False),
        ("a b.com", False),
        ("", False),
        ("[2001:db8::1]443", False),
    ],
)
def test_destinations(destination: str, *, is_right: bool) -> None:
    text = f'name = "a"\n[egress]\nenabled = true\ndestinations = ["{destination}"]'
    if is_right:
        assert loads(text).egress.destinations == (destination,)
    else:
        refused(text)


def test_memory_is_read_with_a_unit_and_without() -> None:
    for text, size in (('"1GiB"', 1 << 30), ('"512 MiB"', 512 << 20), ("134217728", 128 << 20)):
        assert loads(f'name = "a"\n[resources]\nmemory = {text}').resources.memory == size


def test_egress_that_is_off_lists_nothing() -> None:
    text = WHOLE + '[egress]\ndestinations = ["a.com"]\n'
    assert loads(text).attested()["egress"]["destinations"] == []
    on = loads(text + "enabled = true\n").attested()["egress"]
    assert on == {"enabled": True, "destinations": ["a.com"], "allow_private": False}


def test_what_is_not_written_yet_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        loads('name = "a"').attested()
    assert "`uuid`, `app_uuid`, `team_uuid`, `[trust] service_keys`" in caught.value.message
    assert "cloister init" in (caught.value.hint or "")


def test_the_service_port_is_the_tomls_then_the_images_then_8008() -> None:
    def port(text: str, exposed: int | None) -> int:
        attested = loads(WHOLE + text).attested(service_port=exposed)
        number: int = attested["service"]["port"]
        return number

    assert port("[service]\nport = 80\n", 90) == 80
    assert port("", 90) == 90
    assert port("", None) == 8008
    with pytest.raises(ConfigError, match="reserved by the internal API"):
        port("", 9999)


def test_a_body_limit_is_attested_under_the_enclaves_name() -> None:
    limits = loads(WHOLE + "[limits]\nbody = 5\n").attested()["limits"]
    assert limits["max_body"] == 5
    assert "body" not in limits


def test_a_session_has_no_bound_unless_one_is_set() -> None:
    assert loads(WHOLE).attested()["limits"]["tunnel_idle"] is None
    limits = loads(WHOLE + "[limits]\ntunnel_idle = 60000\n").attested()["limits"]
    assert limits["tunnel_idle"] == 60_000
    with pytest.raises(ConfigError, match="tunnel_idle"):
        loads(WHOLE + "[limits]\ntunnel_idle = 0\n")


def test_a_table_made_in_python_is_checked_too() -> None:
    assert Limits(head=2048).head == 2048
    with pytest.raises(ConfigError, match="`head`: expected a whole number"):
        Limits(head=1)
    with pytest.raises(ConfigError, match="DNS label"):
        EnclaveToml(name="No Name")


def test_files_that_cannot_be_read(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "enclave.toml"
    with pytest.raises(MissingInput, match="does not exist") as caught:
        load(file)
    assert caught.value.exit_status == 66
    file.write_bytes(b'name = "a"\n# \xff\n')
    with pytest.raises(ConfigError, match=r"enclave\.toml:2:3: expected UTF-8"):
        load(file)
    file.write_text("#" * (1 << 20) + "\n")
    with pytest.raises(ConfigError, match="longer than"):
        load(file)
    file.write_bytes(b'name = "a"\r\n\r\n[limits]\r\nhead = 1\r\n')
    with pytest.raises(ConfigError, match=r"enclave\.toml:4:1: "):
        load(file)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    problem = outcome(text)
    assert problem is None or problem.message.startswith("enclave.toml:")


KEYS = st.sampled_from(["a", '"a b"', "'c.d'", "x.y", '"q\\"r"'])
VALUES = st.recursive(
    st.sampled_from(["1", "true", '"]}#"', "'''\nx\n'''", '"""a\\"""b"""', "1979-05-27", "1.5"]),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
    max_leaves=5,
)


@given(st.lists(st.tuples(KEYS, VALUES), max_size=4))
def test_the_place_of_an_unknown_key_is_its_line(pairs: list[tuple[str, str]]) -> None:
    """Whatever values stand before it: strings with brackets, lists, several lines."""
    head = "".join(f"[[t]]\n{key} = {value} # ]\n" for key, value in pairs)
    text = 'name = "a"\n' + head + "[zz]\n"
    if pairs:
        assert refused(text).message.startswith("enclave.toml:2:1: unknown setting 't'")
    line = text.count("\n")
    assert positions(text)["zz",] == (line, 1)
