"""The stores of objects: conditions, between threads and processes too, and their bounds.

S3 is moto's server: another implementation of the same API.
"""

import pathlib
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

from cloister.errors import InputError, OutputError
from cloister.host.objects import (
    MAX_OBJECT_BYTES,
    DirectoryObjects,
    ObjectStore,
    PreconditionFailed,
    to_let_go,
)
from cloister.host.s3_objects import S3Objects

pytestmark = pytest.mark.filterwarnings("default")  # of boto3 and moto, not ours

ENCLAVE = uuid.UUID("0d5a2a8e-6a51-4f3b-bf0f-4d8c3f0a9e33")
LIMIT = 12
WRITER = """
import pathlib, sys, uuid
from cloister.host.objects import DirectoryObjects, PreconditionFailed
objects = DirectoryObjects(pathlib.Path(sys.argv[1]))
try:
    objects.write(uuid.UUID(sys.argv[2]), "tls", sys.argv[3].encode(), if_none_match="*")
    print("first")
except PreconditionFailed:
    print("late")
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of its own for each test."""
    name = f"b-{uuid.uuid4()}"
    for variable, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(variable, value)
    boto3.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture(params=["directory", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> ObjectStore:
    if request.param == "directory":
        return DirectoryObjects(tmp_path, limit=LIMIT)
    return S3Objects(request.getfixturevalue("bucket"), prefix="cloister/", limit=LIMIT)


def test_an_object_is_replaced_only_under_its_condition(objects: ObjectStore) -> None:
    assert objects.read(ENCLAVE, "tls") is None
    first = objects.write(ENCLAVE, "tls", b"1", if_none_match="*")
    with pytest.raises(PreconditionFailed):
        objects.write(ENCLAVE, "tls", b"2", if_none_match="*")
    second = objects.write(ENCLAVE, "tls", b"2", if_match=first)
    with pytest.raises(PreconditionFailed):
        objects.write(ENCLAVE, "tls", b"3", if_match=first)
    assert objects.read(ENCLAVE, "tls") == (b"2", second)
    with pytest.raises(PreconditionFailed):
        objects.remove(ENCLAVE, "tls", if_match=first)
    assert objects.remove(ENCLAVE, "tls", if_match=second)
    assert not objects.remove(ENCLAVE, "tls")
    with pytest.raises(PreconditionFailed):
        objects.write(ENCLAVE, "tls", b"4", if_match=second)


def test_one_of_many_threads_is_the_first(tmp_path: pathlib.Path) -> None:
    """Each with a store of its own, as hosts of one process have them."""
    firsts: list[int] = []

    def write(number: int) -> None:
        try:
            body = str(number).encode()
            DirectoryObjects(tmp_path).write(ENCLAVE, "tls", body, if_none_match="*")
        except PreconditionFailed:
            return
        firsts.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(firsts) == 1
    found = DirectoryObjects(tmp_path).read(ENCLAVE, "tls")
    assert found is not None
    assert found[0] == str(firsts[0]).encode()


def test_one_of_many_processes_is_the_first(tmp_path: pathlib.Path) -> None:
    words = [sys.executable, "-c", WRITER, str(tmp_path), str(ENCLAVE)]
    writers = [
        subprocess.Popen([*words, str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    said = [writer.communicate(timeout=60)[0].strip() for writer in writers]
    assert sorted(said) == ["first", "late", "late", "late"]
    found = DirectoryObjects(tmp_path).read(ENCLAVE, "tls")
    assert found is not None
    assert found[0] == str(said.index("first")).encode()


@pytest.mark.parametrize("name", ["", "../a", "A", "a/b", ".a", "a" * 129])
def test_an_object_stays_in_its_place(objects: ObjectStore, name: str) -> None:
    objects.write(ENCLAVE, "a", b"x")
    for call in (objects.read, objects.remove):
        with pytest.raises(InputError):
            call(ENCLAVE, name)
    with pytest.raises(InputError):
        objects.write(ENCLAVE, name, b"x")
    with pytest.raises(InputError, match="at most"):
        objects.write(ENCLAVE, "a", bytes(MAX_OBJECT_BYTES + 1))
    other = uuid.uuid4()
    assert objects.read(other, "a") is None


def test_a_bucket_that_is_not_there_is_said(bucket: str) -> None:
    assert S3Objects(bucket).read(ENCLAVE, "tls") is None
    with pytest.raises(OutputError, match="NoSuchBucket"):
        S3Objects("another").read(ENCLAVE, "tls")


def test_images_that_are_gone_make_room(objects: ObjectStore) -> None:
    names = [f"tls.{number:032x}" for number in range(LIMIT)]
    for name in names:
        objects.write(ENCLAVE, name, b"x")
    newest = f"tls.{LIMIT:032x}"
    objects.write(ENCLAVE, newest, b"x", if_none_match="*")
    assert objects.read(ENCLAVE, newest) is not None
    # S3 tells times by the second: which of the oldest it is, is open there.
    left = [name for name in names if objects.read(ENCLAVE, name) is None]
    assert len(left) == 1
    objects.write(ENCLAVE, newest, b"y")
    assert sum(objects.read(ENCLAVE, name) is None for name in names) == 1


def test_the_one_written_longest_ago_goes() -> None:
    kept = [(f"tls.{number:032x}", float(number)) for number in range(LIMIT)]
    assert to_let_go(kept[1:], "tls.new", limit=LIMIT) is None
    assert to_let_go(kept, f"tls.{999:032x}", limit=LIMIT) == kept[0][0]
    assert to_let_go(kept, f"acme.{0:032x}", limit=LIMIT) == kept[1][0], (
        "its own image keeps what it has"
    )


def test_what_is_of_no_image_is_kept(objects: ObjectStore) -> None:
    for number in range(LIMIT):
        objects.write(ENCLAVE, f"challenge-{number}", b"x")
    with pytest.raises(OutputError, match="at most 12"):
        objects.write(ENCLAVE, "one-more", b"x")
    objects.write(ENCLAVE, "challenge-0", b"y")


def test_an_enclave_has_256_objects_unless_said_otherwise(tmp_path: pathlib.Path) -> None:
    objects = DirectoryObjects(tmp_path)
    for number in range(256):
        objects.write(ENCLAVE, f"o{number}", b"x")
    with pytest.raises(OutputError, match="at most 256"):
        objects.write(ENCLAVE, "one-more", b"x")
