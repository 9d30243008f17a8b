"""Saved images: every format gives the same tree, layers cover each other, damage is noticed."""

import gzip
import json
import pathlib
import shutil
import subprocess
import tarfile
from collections.abc import Callable

import pytest
from tests.support import saved_images as si
from tests.support.saved_images import Entry, file, folder, hard_link, symlink

from cloister.build.rootfs import Directory, File, Node, Symlink, Tree
from cloister.build.sources import Limits, SavedImage, Wanted
from cloister.errors import MalformedImage, MissingInput, UsageError

LAYERS = [
    si.layer(folder("usr"), folder("usr/bin"), file("app", b"program", mode=0o755)),
    si.layer(file("usr/bin/tool", b"tool", uid=5, gid=6), symlink("bin", "usr/bin")),
]


def load(path: pathlib.Path, *, limits: Limits | None = None, **wanted: str) -> Tree:
    return SavedImage(path, path.parent, Wanted(**wanted), limits).load().tree


def merged(tmp_path: pathlib.Path, *layers: bytes, limits: Limits | None = None) -> Tree:
    return load(si.docker_save(tmp_path / "image.tar", layers), limits=limits)


def shown(tree: Tree) -> dict[str, str | bytes | None]:
    """Path and content, target, or ``None`` for a folder."""
    return {path.decode(): content(node) for path, node in tree}


def content(node: Node) -> str | bytes | None:
    if isinstance(node, File):
        return b"".join(node.content.blocks())
    return node.target.decode() if isinstance(node, Symlink) else None


EXPECTED = {
    "app": b"program",
    "bin": "usr/bin",
    "usr": None,
    "usr/bin": None,
    "usr/bin/tool": b"tool",
}

FORMATS: dict[str, Callable[[pathlib.Path], pathlib.Path]] = {
    "docker save": lambda at: si.docker_save(at / "i.tar", LAYERS),
    "docker save | gzip": lambda at: _gzipped(si.docker_save(at / "i.tar", LAYERS)),
    "OCI archive": lambda at: si.archive(at / "i.tar", si.oci_files(LAYERS)),
    "OCI archive, gzip": lambda at: si.archive(
        at / "i.tar", si.oci_files(LAYERS, compression="gzip")
    ),
    "OCI archive, zstd": lambda at: si.archive(
        at / "i.tar", si.oci_files(LAYERS, compression="zstd")
    ),
    "OCI layout": lambda at: si.written(at / "layout", si.oci_files(LAYERS)),
    "OCI layout, gzip": lambda at: si.written(
        at / "layout", si.oci_files(LAYERS, compression="gzip")
    ),
    "docker save of Docker 25": lambda at: si.archive(at / "i.tar", _docker_25()),
}


def _gzipped(path: pathlib.Path) -> pathlib.Path:
    packed = path.with_suffix(".tar.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return packed


def _docker_25() -> dict[str, bytes]:
    """An OCI layout with the older manifest beside it."""
    files = si.oci_files(LAYERS)
    index = json.loads(files["index.json"])
    manifest = json.loads(files["blobs/" + index["manifests"][0]["digest"].replace(":", "/")])
    old = {
        "Config": "blobs/" + manifest["config"]["digest"].replace(":", "/"),
        "RepoTags": ["app:latest"],
        "Layers": ["blobs/" + one["digest"].replace(":", "/") for one in manifest["layers"]],
    }
    return files | {"manifest.json": json.dumps([old]).encode()}


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_same_files(form: str, tmp_path: pathlib.Path) -> None:
    tree = load(FORMATS[form](tmp_path))
    assert shown(tree) == EXPECTED
    app, tool = tree.node(b"app"), tree.node(b"usr/bin/tool")
    assert app is not None
    assert tool is not None
    assert (app.mode, tool.uid, tool.gid, tool.mtime) == (0o755, 5, 6, 1_600_000_000)


def test_docker_s_own_links_between_equal_layers_are_followed(tmp_path: pathlib.Path) -> None:
    raw = json.dumps(si.configuration([LAYERS[0], LAYERS[0]])).encode()
    name = si.digest(raw).removeprefix("sha256:") + ".json"
    manifest = [{"Config": name, "RepoTags": None, "Layers": ["a/layer.tar", "b/layer.tar"]}]
    path = si.archive(
        tmp_path / "i.tar",
        {name: raw, "a/layer.tar": LAYERS[0], "manifest.json": json.dumps(manifest).encode()},
    )
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("b/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../a/layer.tar"
        tar.addfile(link)
    assert "app" in shown(load(path))


def test_a_later_layer_replaces_and_hides_what_an_earlier_one_has(tmp_path: pathlib.Path) -> None:
    tree = merged(
        tmp_path,
        si.layer(
            *(folder(name) for name in ("kept", "opaque", "opaque/inner", "gone", "gone/deep")),
            *(file(name) for name in ("kept/a", "kept/b", "opaque/old", "opaque/inner/old")),
            *(file(name) for name in ("gone/deep/file", "file", "becomes-folder")),
            folder("becomes-file"),
            file("becomes-file/inner"),
        ),
        si.layer(
            file("kept/.wh.a", b""),
            folder("opaque"),
            file("opaque/new", b"new"),
            file("opaque/.wh..wh..opq", b""),
            file(".wh.gone", b""),
            file("file", b"second"),
            folder("becomes-folder"),
            file("becomes-folder/inner", b"inner"),
            file("becomes-file", b"file"),
            file(".wh..wh.plnk", b""),
        ),
    )
    assert shown(tree) == {
        "becomes-file": b"file",
        "becomes-folder": None,
        "becomes-folder/inner": b"inner",
        "file": b"second",
        "kept": None,
        "kept/b": b"x",
        "opaque": None,
        "opaque/new": b"new",
    }


@pytest.mark.parametrize("first", [True, False], ids=["whiteout first", "whiteout last"])
def test_a_whiteout_spares_what_its_own_layer_brings(first: bool, tmp_path: pathlib.Path) -> None:  # noqa: FBT001
    brings = [folder("d"), file("d/new", b"new")]
    hides = [file(".wh.d", b"")]
    tree = merged(
        tmp_path,
        si.layer(folder("d", mode=0o700), file("d/old"), folder("d/sub"), file("d/sub/old")),
        si.layer(*(hides + brings if first else brings + hides)),
    )
    assert shown(tree) == {"d": None, "d/new": b"new"}
    made = tree.node(b"d")
    assert made is not None
    assert made.mode == 0o755


def test_a_folder_of_two_layers_has_the_attributes_of_the_later(tmp_path: pathlib.Path) -> None:
    tree = merged(
        tmp_path,
        si.layer(folder("d", mode=0o700, uid=1), file("d/a")),
        si.layer(folder("d", mode=0o1777, uid=2), file("d/b")),
    )
    made = tree.node(b"d")
    assert isinstance(made, Directory)
    assert (made.mode, made.uid, sorted(made.children)) == (0o1777, 2, [b"a", b"b"])


def test_hard_links_stay_links_and_lose_their_tie_when_replaced(tmp_path: pathlib.Path) -> None:
    tree = merged(
        tmp_path,
        si.layer(file("a", b"one"), hard_link("b", "a"), hard_link("c", "./b")),
        si.layer(file("b", b"two"), hard_link("d", "/a")),
    )
    assert tree.node(b"a") is tree.node(b"c") is tree.node(b"d")
    assert shown(tree) == {"a": b"one", "b": b"two", "c": b"one", "d": b"one"}


def test_a_hard_link_to_a_symbolic_link_is_one(tmp_path: pathlib.Path) -> None:
    tree = merged(tmp_path, si.layer(symlink("a", "target"), hard_link("b", "a")))
    assert shown(tree) == {"a": "target", "b": "target"}


def test_entries_below_a_link_to_a_folder_land_in_that_folder(tmp_path: pathlib.Path) -> None:
    """As containerd applies them: a merged /usr stays one when a layer still says /lib."""
    tree = merged(
        tmp_path,
        si.layer(folder("usr"), folder("usr/lib"), symlink("lib", "usr/lib")),
        si.layer(file("lib/x", b"x"), file("lib/.wh.nothing", b"")),
    )
    assert shown(tree) == {"lib": "usr/lib", "usr": None, "usr/lib": None, "usr/lib/x": b"x"}


def test_long_names_other_alphabets_and_set_id_bits_survive(tmp_path: pathlib.Path) -> None:
    long = "d/" + "x" * 200
    deep = "/".join(["part"] * 60)
    entries = [
        folder("d"),
        file(long, b"long"),
        file("d/ünï ☃", b"snow"),
        file("setuid", mode=0o6755),
        folder("sticky", mode=0o1777),
        file(deep, b"deep"),
        file("rich", uid=3_000_000, gid=4_000_000_000),
    ]
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        tree = merged(tmp_path, si.layer(*entries, form=form))
        found = shown(tree)
        assert (found[long], found["d/ünï ☃"], found[deep]) == (b"long", b"snow", b"deep")
        nodes = {path: node for path, node in tree}  # noqa: C416 - as a dictionary
        assert (nodes[b"setuid"].mode, nodes[b"sticky"].mode) == (0o6755, 0o1777)
        assert (nodes[b"rich"].uid, nodes[b"rich"].gid) == (3_000_000, 4_000_000_000)


def test_names_that_are_not_utf_8_keep_their_bytes(tmp_path: pathlib.Path) -> None:
    raw = si.layer(file("name-\udce9"), form=tarfile.GNU_FORMAT)
    assert [path for path, _ in merged(tmp_path, raw)] == [b"name-\xe9"]


@pytest.mark.parametrize("form", ["gnu", "0.0", "0.1", "1.0"])
def test_sparse_files_have_their_holes_as_zeros(form: str, tmp_path: pathlib.Path) -> None:
    """Written by GNU tar, where there is one: it is the tool that makes them."""
    tar = shutil.which("tar")
    if tar is None:
        pytest.skip("there is no tar (Debian: apt-get install tar)")
    sparse = tmp_path / "in" / "sparse"
    sparse.parent.mkdir()
    with sparse.open("wb") as out:
        out.seek(1 << 20)
        out.write(b"middle")
        out.seek(3 << 20)
        out.write(b"end")
        out.truncate(4 << 20)
    words = ["--format=gnu"] if form == "gnu" else ["--format=pax", f"--sparse-version={form}"]
    archive = tmp_path / "layer.tar"
    command = [tar, "-C", str(sparse.parent), "-S", *words, "-cf", str(archive), "sparse"]
    subprocess.run(command, check=True)
    assert archive.stat().st_size < 1 << 20
    node = merged(tmp_path, archive.read_bytes()).node(b"sparse")
    assert node is not None
    assert content(node) == sparse.read_bytes()


def test_extended_attributes_are_dropped_and_said(tmp_path: pathlib.Path) -> None:
    ping = Entry(name="ping", pax={"SCHILY.xattr.security.capability": "x"})
    image = SavedImage(si.docker_save(tmp_path / "i.tar", [si.layer(ping)]), tmp_path).load()
    assert "security.capability" in image.warnings[0]


def test_device_nodes_in_dev_are_left_out_and_said(tmp_path: pathlib.Path) -> None:
    null = Entry(name="dev/null", kind=tarfile.CHRTYPE)
    image = SavedImage(si.docker_save(tmp_path / "i.tar", [si.layer(null)]), tmp_path).load()
    assert "dev/null" in image.warnings[0]
    assert image.tree.node(b"dev/null") is None


def test_an_empty_file_that_a_builder_mounted_over_is_not_there(tmp_path: pathlib.Path) -> None:
    """One of buildah stays when the base has none; `localhost` would then have no address."""
    stubs = [file(f"etc/{name}", b"") for name in ("hosts", "resolv.conf", "hostname")]
    others = [file("etc/empty", b""), file("hosts", b"")]
    tree = merged(tmp_path, si.layer(folder("etc")), si.layer(*stubs, *others))
    assert shown(tree) == {"etc": None, "etc/empty": b"", "hosts": b""}
    own = [file("etc/hosts", b"127.0.0.1 localhost\n"), symlink("etc/resolv.conf", "../run/x")]
    tree = merged(tmp_path, si.layer(folder("etc"), *own, folder("etc/hostname")))
    assert len(tree) == 4


def test_the_name_of_an_image_is_the_digest_of_its_configuration(tmp_path: pathlib.Path) -> None:
    raw = json.dumps(si.configuration(LAYERS)).encode()
    image = SavedImage(si.docker_save(tmp_path / "i.tar", LAYERS), tmp_path)
    assert image.identity == si.digest(raw)
    assert image.names == ("app:latest",)


def test_a_damaged_layer_is_noticed_in_every_format(tmp_path: pathlib.Path) -> None:
    path = si.docker_save(tmp_path / "i.tar", LAYERS)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"program", b"PROGRAM"))
    with pytest.raises(MalformedImage, match="digest"):
        load(path)
    for compression in ("", "gzip", "zstd"):
        files = si.oci_files(LAYERS, compression=compression)
        blob = si.compressed(LAYERS[0], compression)
        name = f"blobs/{si.digest(blob).replace(':', '/')}"
        load(si.archive(tmp_path / "whole.tar", files))
        damaged = bytearray(blob)
        damaged[len(blob) // 2] ^= 1
        with pytest.raises(MalformedImage):
            load(si.archive(tmp_path / "damaged.tar", files | {name: bytes(damaged)}))
        with pytest.raises(MalformedImage, match="bytes long"):
            load(si.archive(tmp_path / "short.tar", files | {name: blob[:-1]}))


def test_a_layer_that_hides_its_damage_in_the_compression_is_noticed(
    tmp_path: pathlib.Path,
) -> None:
    """The descriptor's digest is right, the configuration's is not: both are checked."""
    files = si.oci_files(LAYERS, compression="gzip")
    other = si.oci_files([LAYERS[0], si.layer(file("evil"))], compression="gzip")
    index = json.loads(other["index.json"])
    manifest_path = "blobs/" + index["manifests"][0]["digest"].replace(":", "/")
    manifest = json.loads(other[manifest_path])
    honest = json.loads(files["index.json"])["manifests"][0]["digest"]
    manifest["config"] = json.loads(files["blobs/" + honest.replace(":", "/")])["config"]
    raw = json.dumps(manifest).encode()
    index["manifests"][0] |= si.descriptor(raw, si.MANIFEST)
    mixed = (
        files
        | other
        | {
            "index.json": json.dumps(index).encode(),
            f"blobs/{si.digest(raw).replace(':', '/')}": raw,
        }
    )
    with pytest.raises(MalformedImage, match="digest"):
        load(si.archive(tmp_path / "i.tar", mixed))


def test_one_of_several_images_is_named(tmp_path: pathlib.Path) -> None:
    first = si.oci_files(LAYERS, name="one:1")
    second = si.oci_files(LAYERS[:1], name="two:1")
    both = json.loads(first["index.json"])
    both["manifests"] += json.loads(second["index.json"])["manifests"]
    path = si.archive(
        tmp_path / "i.tar", first | second | {"index.json": json.dumps(both).encode()}
    )
    with pytest.raises(UsageError, match="2 images") as problem:
        load(path)
    assert "one:1, two:1" in (problem.value.hint or "")
    assert "bin" not in shown(load(path, reference="two:1"))
    assert "bin" in shown(load(path, reference="one:1"))
    with pytest.raises(UsageError, match="three"):
        load(path, reference="three")


def test_the_image_of_the_architecture_is_taken(tmp_path: pathlib.Path) -> None:
    amd, arm = si.oci_files(LAYERS), si.oci_files(LAYERS[:1], architecture="arm64")
    both = json.loads(amd["index.json"])
    both["manifests"] += json.loads(arm["index.json"])["manifests"]
    files = amd | arm | {"index.json": json.dumps(both).encode()}
    path = si.archive(tmp_path / "i.tar", files)
    assert "bin" in shown(load(path))
    assert "bin" not in shown(load(path, architecture="arm64"))
    with pytest.raises(UsageError, match="linux/riscv64"):
        load(path, architecture="riscv64")
    only = si.archive(tmp_path / "arm.tar", arm)
    with pytest.raises(UsageError, match="linux/amd64"):
        load(only)


def test_what_is_no_saved_image_says_what_one_is(tmp_path: pathlib.Path) -> None:
    with pytest.raises(MissingInput):
        load(tmp_path / "none.tar")
    (tmp_path / "text").write_text("hello\n" * 200)
    with pytest.raises(MalformedImage, match="tar archive"):
        load(tmp_path / "text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MalformedImage, match=r"neither .index\.json. nor") as problem:
        load(tmp_path / "folder")
    assert "--rootfs" in (problem.value.hint or "")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(MalformedImage):
        load(tmp_path / "empty")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"Env": ["A"]}, "Env"),
        ({"Env": "A=1"}, "Env"),
        ({"Entrypoint": [1]}, "Entrypoint"),
        ({"WorkingDir": "relative"}, "WorkingDir"),
        ({"ExposedPorts": {"70000/tcp": {}}}, "ExposedPorts"),
        ({"Healthcheck": {"Test": ["CMD"]}}, "Test"),
        ({"Healthcheck": {"Test": ["CMD", "x"], "Interval": -1}}, "Interval"),
        ({"StopSignal": "SIGNOTHING"}, "SIGNOTHING"),
        ({"Labels": {"a": 1}}, "a"),
        ({"Cmd": ["a\0b"]}, "Cmd"),
    ],
)
def test_a_wrong_setting_is_named(
    config: dict[str, object], message: str, tmp_path: pathlib.Path
) -> None:
    SavedImage(si.docker_save(tmp_path / "right.tar", LAYERS), tmp_path)
    with pytest.raises(MalformedImage, match=message):
        SavedImage(si.docker_save(tmp_path / "i.tar", LAYERS, config), tmp_path)


def test_the_settings_of_a_saved_image(tmp_path: pathlib.Path) -> None:
    path = si.docker_save(
        tmp_path / "i.tar",
        LAYERS,
        {
            "Entrypoint": ["/bin/sh", "-c", "x"],
            "Cmd": ["y"],
            "Env": ["PATH=/bin", "EMPTY=", "TWO=a=b"],
            "WorkingDir": "/srv",
            "User": "app:app",
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "81": {}},
            "StopSignal": "SIGINT",
            "Volumes": {"/data": {}},
            "Shell": ["/bin/bash", "-c"],
            "Healthcheck": {
                "Test": ["CMD-SHELL", "curl localhost"],
                "Interval": 5_000_000_000,
                "Timeout": 500_000,
                "Retries": 0,
            },
            "Labels": {"a": "b"},
        },
    )
    config = SavedImage(path, tmp_path).config
    assert config.argv == ["/bin/sh", "-c", "x", "y"]
    assert config.env == {"PATH": "/bin", "EMPTY": "", "TWO": "a=b"}
    assert config.exposed == [(80, "tcp"), (53, "udp"), (81, "tcp")]
    assert (config.cwd, config.user, config.stop_signal) == ("/srv", "app:app", "SIGINT")
    assert (config.volumes, config.labels) == (["/data"], {"a": "b"})
    check = config.healthcheck
    assert check is not None
    assert (check.interval_ms, check.timeout_ms, check.retries) == (5000, 1, 3)
    assert config.process(with_healthcheck=True)["healthcheck"]["argv"] == [
        "/bin/sh",
        "-c",
        "curl localhost",
    ]
