"""``init``, ``build`` and ``describe`` as processes, in a folder of their own."""

import json
import os
import pathlib
import shutil
import stat

import pytest
from tests.support.project import DOCKERFILE, Project

from cloister import build
from cloister.build import cpio
from cloister.config import canonical_json, load


@pytest.fixture(scope="module")
def initialized(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    project = Project(tmp_path_factory.mktemp("project"))
    project.run("init", "hello")
    return project.folder


@pytest.fixture
def project(initialized: pathlib.Path, tmp_path: pathlib.Path) -> Project:
    """A fresh copy of an initialized project."""
    shutil.copytree(initialized, tmp_path / "project")
    return Project(tmp_path / "project")


@pytest.fixture
def empty(tmp_path: pathlib.Path) -> Project:
    return Project(tmp_path)


def edit(project: Project, text: str) -> None:
    project.toml.write_text(project.toml.read_text() + text)


def test_init_writes_what_a_build_needs(initialized: pathlib.Path) -> None:
    toml = load(initialized / "enclave.toml")
    assert toml.name == "hello"
    assert toml.attested()["service"] == {"port": 8008, "protocol": "http1"}
    assert toml.signing.key_path is not None
    key = toml.beside(toml.signing.key_path)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert (initialized / ".cloister" / ".gitignore").read_text() == "*\n"


def test_build_twice_gives_the_same_bytes(project: Project) -> None:
    edit(project, "# the owner's comment\n")
    first = project.json("build")
    image = project.eif.read_bytes()
    assert project.json("build") == first
    assert project.eif.read_bytes() == image
    text = project.toml.read_text()
    assert "# the owner's comment" in text
    assert text.startswith("# Settings of an enclave.")
    assert list(first["pcrs"]) == ["PCR0", "PCR1", "PCR2", "PCR8"]
    assert all(f'{name} = "{value}"' in text for name, value in first["pcrs"].items())
    assert load(project.toml).attestation.registers() == build.measure(project.eif).registers()
    assert first["service_port"] == 8080
    assert project.json("describe", "enclave.eif", "--verify")["pcrs"] == first["pcrs"]


def test_where_and_when_it_is_built_changes_nothing(
    project: Project, tmp_path: pathlib.Path
) -> None:
    first = project.json("build")["pcrs"]
    image = project.eif.read_bytes()
    elsewhere = pathlib.Path(shutil.copytree(project.folder, tmp_path / "else" / "where"))
    for path in elsewhere.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    environment = {"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    again = Project.of(elsewhere)
    assert again.json("build", **environment)["pcrs"] == first
    assert again.eif.read_bytes() == image
    dated = again.json("build", SOURCE_DATE_EPOCH="86400")
    assert dated["pcrs"] != first
    shown = again.json("describe", "enclave.eif")
    assert shown["metadata"]["BuildMetadata"]["BuildTime"] == "1970-01-02T00:00:00Z"
    (out, err) = again.run("build", status=2, SOURCE_DATE_EPOCH="yesterday")
    assert "SOURCE_DATE_EPOCH" in err
    assert not out


def test_what_is_in_the_image(project: Project) -> None:
    project.run("build")
    with build.open_eif(project.eif) as image:
        boot, application = (
            {entry.path.decode(): entry for entry in cpio.read(section.payload)}
            for section in image.ramdisks
        )
        assert list(boot) == ["init"]
        assert boot["init"].mode == 0o100755
        assert list(application) == [
            "cloister",
            "cloister/config.json",
            "cloister/process.json",
            "rootfs",
            "rootfs/app",
        ]
        config = bytes(application["cloister/config.json"].data)
        process = json.loads(bytes(application["cloister/process.json"].data))
        assert bytes(application["rootfs/app"].data) == b"\x7fELF program"
    assert config == canonical_json(load(project.toml).attested(service_port=8080))
    assert process["argv"] == ["/app"]
    record = (project.folder / "enclave.Dockerfile").read_text()
    assert record.endswith(DOCKERFILE)
    assert "# builder: native" in record


def test_only_what_is_measured_changes_the_measurement(project: Project) -> None:
    before = project.json("build")["pcrs"]
    text = project.toml.read_text()
    project.toml.write_text(text.replace("cpus = 2", "cpus = 4").replace("replicas = 2", "s = 3"))
    project.toml.write_text(project.toml.read_text().replace("desired_s", "desired_replicas"))
    assert project.json("build")["pcrs"] == before
    project.toml.write_text(text.replace("api_key_auth = true", "api_key_auth = false"))
    after = project.json("build")["pcrs"]
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"PCR0", "PCR2"}


def test_copying_everything_leaves_keys_and_outputs_out(project: Project) -> None:
    (project.folder / "Dockerfile").write_text(DOCKERFILE.replace("COPY app /app", "COPY . /"))
    first = project.json("build")
    assert project.json("build")["pcrs"] == first["pcrs"]
    with build.open_eif(project.eif) as image:
        names = [entry.path.decode() for entry in cpio.read(image.ramdisks[1].payload)]
    assert names[4:] == ["rootfs/Dockerfile", "rootfs/app"]
    _, err = project.run("build")
    assert "never copied into an image: .cloister" in err


def test_an_unsigned_image_has_no_pcr8_and_loses_the_old_one(project: Project) -> None:
    assert "PCR8" in project.json("build")["pcrs"]
    lines = project.toml.read_text().splitlines(keepends=True)
    project.toml.write_text("".join(line for line in lines if "Path = " not in line))
    out, err = project.run("build")
    assert "PCR8" not in out
    assert "not signed" in err
    assert "PCR8 = " not in project.toml.read_text()
    shown, _ = project.run("describe", "enclave.eif", "--verify")
    assert "signature: none" in shown


@pytest.mark.parametrize(
    ("dockerfile", "status", "message", "hint"),
    [
        ("FROM scratch\nCOPY app /app\nRUN make\n", 65, "Dockerfile:3: RUN needs", "native"),
        ("FROM debian\n", 65, "Dockerfile:1: `debian` needs a base", "native"),
        ("FROM scratch\nCOPY app\n", 65, "Dockerfile:2: COPY lacks", ""),
        (DOCKERFILE.replace("8080", "8080 8081"), 78, "(8080, 8081)", "[service] port = 8080"),
        (DOCKERFILE.replace("8080", "9999"), 78, "9999 is reserved by the internal API", "port"),
        (DOCKERFILE.replace("ENTRYPOINT", "#"), 65, "neither ENTRYPOINT nor CMD", "ENTRYPOINT"),
        (None, 66, "there is no Dockerfile", "`dockerfile`"),
    ],
)
def test_bad_input_is_a_clear_error_and_loses_nothing(
    project: Project, dockerfile: str | None, status: int, message: str, hint: str
) -> None:
    project.run("build")
    if dockerfile is None:
        (project.folder / "Dockerfile").unlink()
    else:
        (project.folder / "Dockerfile").write_text(dockerfile)
    before = project.files()
    problem = project.error("build", "--builder", "native", status=status)
    assert message in problem["message"]
    assert hint in (problem["hint"] or "")
    assert project.files() == before


def test_several_exposed_ports_are_fine_when_one_is_named(project: Project) -> None:
    (project.folder / "Dockerfile").write_text(DOCKERFILE.replace("8080", "8080 8081 53/udp"))
    edit(project, "[service]\nport = 8081\n")
    assert project.json("build")["service_port"] == 8081


@pytest.mark.parametrize(
    ("text", "status", "message", "hint"),
    [
        ("\n[limits]\nbodyy = 3\n", 78, "unknown setting 'bodyy'", "`body`"),
        ('\n[kernel]\nimage = "bzImage"\n', 66, "there is no kernel", 'image = "build"'),
        ('\n[kernel]\ncmdline = "quiet"\n', 78, "needs `image`", "kernel build"),
        ("broken", 78, "expected TOML", ""),
    ],
)
def test_a_wrong_toml(project: Project, text: str, status: int, message: str, hint: str) -> None:
    edit(project, text)
    before = project.files()
    problem = project.error("build", "--builder", "native", status=status)
    assert message in problem["message"]
    assert hint in (problem["hint"] or "")
    assert project.files() == before


def test_too_little_memory_names_the_number_to_set(project: Project) -> None:
    text = project.toml.read_text()
    with (project.folder / "app").open("ab") as file:
        file.truncate(40 << 20)
    project.toml.write_text(text.replace('memory = "1GiB"', 'memory = "128MiB"'))
    problem = project.error("build", status=78)
    hint = problem["hint"].partition('"')[2].partition('"')[0]
    assert not project.eif.exists()
    project.toml.write_text(text.replace('"1GiB"', f'"{hint}"'))
    assert project.json("build")["memory_needed"] <= load(project.toml).resources.memory


def test_a_wrong_key_file(project: Project) -> None:
    key = project.folder / ".cloister" / "signing" / "key.pem"
    before = key.read_bytes()
    key.write_text("hello")
    problem = project.error("build", status=65)
    assert "not a private key in PEM" in problem["message"]
    assert not project.eif.exists()
    key.write_bytes(before)
    project.run("build")


def test_an_output_that_cannot_be_written(project: Project) -> None:
    problem = project.error("build", "--output", "nowhere/x.eif", status=73)
    assert "nowhere/x.eif" in problem["message"]
    assert "[attestation]" not in project.toml.read_text()
    (project.folder / "out").mkdir()
    project.run("build", "--output", "out/x.eif", "--builder", "native")
    assert sorted(path.name for path in (project.folder / "out").iterdir()) == [
        "enclave.Dockerfile",
        "x.eif",
    ]


def test_build_arguments_reach_the_image(project: Project) -> None:
    (project.folder / "Dockerfile").write_text(DOCKERFILE + "ARG A=0\nENV SEEN=$A\n")
    first = project.json("build")["pcrs"]
    assert project.json("build", "--build-arg", "A=value-1")["pcrs"] != first
    record = (project.folder / "enclave.Dockerfile").read_text()
    # Values may be secret, although they should not be.
    assert "# build arguments, names only: A\n" in record
    assert "value-1" not in record
    assert "NAME=VALUE" in project.error("build", "--build-arg", "A", status=2)["message"]
    assert "guess" in project.error("build", "--builder", "guess", status=2)["message"]


@pytest.mark.parametrize("at", [0, 300, 600, -1])
def test_a_corrupted_image_is_refused(project: Project, at: int) -> None:
    project.run("build")
    content = bytearray(project.eif.read_bytes())
    content[at] ^= 0xFF
    project.eif.write_bytes(content)
    problem = project.error("describe", "enclave.eif", status=65)
    assert problem["code"] == "MalformedImage"
    assert "offset" in problem["message"]
    assert project.error("describe", "none.eif", status=66)["code"] == "MissingInput"


def test_describe_shows_no_control_characters(project: Project) -> None:
    (project.folder / "Dockerfile").write_text(DOCKERFILE + 'LABEL a="\x1b[31m\u202e"\n')
    project.run("build")
    shown, _ = project.run("describe", "enclave.eif")
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    for word in ("PCR0", "PCR8", "CRC-32", "subject CN=hello", "no kernel", '"ImageName": "hello"'):
        assert word in shown


def test_init_does_not_overwrite_unless_told(project: Project) -> None:
    before = project.files()
    assert "--force" in project.error("init", "other", status=73)["hint"]
    assert project.files() == before
    old = load(project.toml)
    said = project.json("init", "hello", "--force", "--port", "80")
    new = load(project.toml)
    assert (new.name, new.service.port) == ("hello", 80)
    assert new.uuid == old.uuid
    assert said["uuid"] == str(old.uuid)
    assert new.trust == old.trust
    key = ".cloister/signing/key.pem"
    assert project.files()[key] == before[key]
    # Another name is another enclave, of the same app.
    other = project.json("init", "other", "--force")
    assert other["uuid"] != said["uuid"]
    assert other["app_uuid"] == said["app_uuid"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Bad_Name"], "DNS label"),
        (["a", "--port", "9999"], "reserved by the internal API"),
        (["a", "--port", "70000"], "1 to 65535"),
        (["a", "--replicas", "0"], "1 to 1000"),
        (["a", "--healthcheck", "health"], 'starts with "/"'),
        (["a", "--healthcheck-port", "80"], "needs --healthcheck"),
        (["a", "--trusted-headers", "cookie"], "header"),
        (["a", "--egress-destinations", "https://x"], "destination"),
        (["a", "--disable-tls-termination", "--healthcheck", "/h"], "a port of its own"),
        (["a", "--signing-cert", "c.pem"], "come together"),
        ([], "NAME"),
    ],
)
def test_init_checks_everything_before_it_writes(
    empty: Project, words: list[str], message: str
) -> None:
    before = empty.files()
    problem = empty.error("init", *words, status=2)
    assert message in problem["message"] + (problem["hint"] or "")
    assert empty.files() == before


def test_init_takes_every_option(empty: Project) -> None:
    empty.run("init", "first")
    shutil.copytree(empty.folder / ".cloister" / "signing", empty.folder / "mine")
    shutil.rmtree(empty.folder / ".cloister")
    words = "--egress-destinations a.com:443,*.b.com --trusted-headers x-a,x-b-* --port 3000"
    words += " --healthcheck /health --healthcheck-port 3001 --replicas 3 --debug --force"
    words += " --dockerfile deploy/Dockerfile --disable-api-key-auth --disable-trx-logging"
    words += " --signing-cert mine/cert.pem --private-key mine/key.pem"
    _, err = empty.run("init", "second", *words.split())
    toml = load(empty.toml)
    assert toml.egress.destinations == ("a.com:443", "*.b.com")
    assert toml.egress.enabled
    assert toml.trusted_headers == ("x-a", "x-b-*")
    assert toml.healthcheck is not None
    assert (toml.healthcheck.path, toml.healthcheck.port) == ("/health", 3001)
    assert (toml.service.port, toml.scaling.desired_replicas) == (3000, 3)
    assert (toml.debug, toml.api_key_auth, toml.trx_logging) == (True, False, False)
    assert toml.dockerfile == "deploy/Dockerfile"
    assert (toml.signing.cert_path, toml.signing.key_path) == ("mine/cert.pem", "mine/key.pem")
    assert not (empty.folder / ".cloister" / "signing").exists()
    assert "debug" in err


def test_init_without_tls_termination_says_what_goes_off(empty: Project) -> None:
    _, err = empty.run("init", "a", "--disable-tls-termination")
    toml = load(empty.toml)
    assert (toml.tls_termination, toml.api_key_auth, toml.trx_logging) == (False, False, False)
    assert "API keys and logs are off" in err


@pytest.mark.parametrize("command", ["init", "build", "describe"])
def test_help_has_an_example(empty: Project, command: str) -> None:
    out, _ = empty.run(command, "--help")
    assert f"cloister {command}" in out.partition("Example")[2]


@pytest.mark.skipif(os.geteuid() != 0, reason="root writes what a user may not")
def test_a_toml_of_somebody_else_stays_theirs(project: Project) -> None:
    os.chown(project.toml, 1234, 1234)
    project.run("build")
    assert (project.toml.stat().st_uid, project.toml.stat().st_gid) == (1234, 1234)
