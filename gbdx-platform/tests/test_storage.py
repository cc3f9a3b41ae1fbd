"""Object storage: which URLs mean what, keys that try to leave their folder, more than 1,000 keys, broken transfers."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from gbdx_platform.client import Client
from gbdx_platform.storage import Place, Storage, StorageError, parse, safe_relative
from gbdx_platform.transfers import PART, TransferError, abort_unfinished, get, part_size, partial_file, put
from live_service import Service, Session, definition, port, script, states, task
from waiting import wait_until

LARGE = bytes(range(256)) * 4 * 2**10 * 20  # 20 MiB: three parts


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://bucket/some/key", Place("bucket", "some/key")),
        ("s3://bucket/what?is#this", Place("bucket", "what?is#this")),
        ("https://bucket.s3.amazonaws.com/some/a%20key", Place("bucket", "some/a key")),
        ("http://my.bucket.s3.us-west-2.amazonaws.com/key", Place("my.bucket", "key")),
        ("http://s3.amazonaws.com/bucket/some/key", Place("bucket", "some/key")),
        ("https://s3-us-west-2.amazonaws.com/bucket/key?versionId=1", Place("bucket", "key")),
        ("file:///data/in", Place("", "/data/in")),
        ("file://localhost/data/an%20in", Place("", "/data/an in")),
    ],
)
def test_a_url_means_a_bucket_and_a_key_or_a_path(url: str, place: Place) -> None:
    assert parse(url) == place


@pytest.mark.parametrize(
    "url",
    ["", "key", "/data", "s3://", "ftp://host/key", "https://example.com/bucket/key", "file://host/x", "http://[/key"],
)
def test_another_url_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(StorageError, match="expected s3://bucket/key, an http"):
        parse(url)


@pytest.mark.parametrize(("size", "part"), [(0, PART), (80 * 10**9, PART), (5 * 2**40, 525 * 2**20)])
def test_no_file_has_more_parts_than_s3_takes(size: int, part: int) -> None:
    assert part_size(size) == part
    assert size <= 10_000 * part


@pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "/etc/passwd", "a//b", "a/./b", "x\0", ""])
def test_a_key_can_not_leave_its_folder(name: str) -> None:
    with pytest.raises(StorageError, match="expected a relative path without"):
        safe_relative(name)


def test_files_are_read_below_the_allowed_roots_only(tmp_path: Path, session: Session) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "in").mkdir(parents=True)
    (root / "in" / "a.txt").write_text("a")
    outside.mkdir()
    (root / "way-out").symlink_to(outside)
    storage = Storage("bucket", (root,), region_name="us-east-1")
    assert storage.fetch((root / "in").as_uri(), "gbdx", tmp_path / "copy") == 1
    assert (tmp_path / "copy" / "a.txt").read_text() == "a"
    for place in (outside, root / "way-out", root / ".." / "outside"):
        with pytest.raises(StorageError, match="expected a folder below the roots in GBDX_FILE_ROOTS"):
            storage.fetch(f"file://{place}", "gbdx", tmp_path / "never")


def test_a_file_that_can_not_be_copied_is_named_and_the_services_folder_is_not(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    os.mkfifo(tmp_path / "root" / "pipe")
    storage = Storage("bucket", (tmp_path / "root",), region_name="us-east-1")
    with pytest.raises(TransferError, match="root/pipe` is a named pipe") as refused:
        storage.fetch((tmp_path / "root").as_uri(), "gbdx", tmp_path / "copy")
    assert str(tmp_path / "copy") not in str(refused.value)


def test_another_try_for_files_of_this_machine_begins_anew_and_links_stay_links(tmp_path: Path) -> None:
    source, copy = tmp_path / "root", tmp_path / "copy"
    source.mkdir()
    (source / "a.txt").write_text("a")
    (source / "link").symlink_to("a.txt")
    (source / "absolute").symlink_to(source / "a.txt")
    os.mkfifo(source / "pipe")
    storage = Storage("bucket", (source,), region_name="us-east-1")
    with pytest.raises(TransferError, match="is a named pipe"):  # which the service tries again, as it does with S3
        storage.fetch(source.as_uri(), "gbdx", copy)
    (source / "pipe").unlink()
    assert storage.fetch(source.as_uri(), "gbdx", copy) == 3
    assert (os.readlink(copy / "link"), os.readlink(copy / "absolute")) == ("a.txt", str(source / "a.txt"))


def test_more_than_1000_keys_come_and_a_neighbour_with_the_same_beginning_does_not(
    session: Session, tmp_path: Path, fresh: str
) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: session.put(f"{fresh}/in/{number}.txt", b""), range(1005)))
    session.put(f"{fresh}/in2/neighbour.txt")
    count = session.storage.fetch(f"s3://{session.bucket}/{session.prefix}/{fresh}/in", session.prefix, tmp_path / "in")
    assert count == 1005
    assert not (tmp_path / "in" / "neighbour.txt").exists()


def test_one_object_may_be_meant_and_a_large_one_comes_back_equal(session: Session, tmp_path: Path, fresh: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "large.bin").write_bytes(LARGE)
    assert session.storage.keep(tmp_path / "out", f"{session.prefix}/{fresh}") == 1
    url = f"s3://{session.bucket}/{session.prefix}/{fresh}/large.bin"
    assert session.storage.fetch(url, session.prefix, tmp_path / "back") == 1
    assert (tmp_path / "back" / "large.bin").read_bytes() == LARGE


def test_a_broken_upload_of_the_same_content_goes_on_and_of_other_content_begins_anew(
    session: Session, tmp_path: Path, fresh: str
) -> None:
    client, place = session.storage.client, {"Bucket": session.bucket, "Key": f"{session.prefix}/{fresh}/large.bin"}
    path = tmp_path / "large.bin"
    path.write_bytes(LARGE)
    upload = client.create_multipart_upload(**place)["UploadId"]
    client.upload_part(**place, UploadId=upload, PartNumber=2, Body=LARGE[PART : 2 * PART])
    path.write_bytes(LARGE[:PART] + b"changed" + LARGE[PART:])
    assert put(client, session.bucket, path, place["Key"]) == 0
    path.write_bytes(LARGE)
    assert put(client, session.bucket, path, place["Key"]) == 1
    assert client.get_object(**place)["Body"].read() == LARGE


@pytest.mark.parametrize("part", [5 * 2**20, PART, 64 * 2**20])
def test_a_broken_download_goes_on_and_is_compared_whatever_its_parts_were(
    part: int, session: Session, tmp_path: Path, fresh: str
) -> None:
    client, key, path = session.storage.client, f"{session.prefix}/{fresh}/large.bin", tmp_path / "large.bin"
    sizes = TransferConfig(multipart_threshold=part, multipart_chunksize=part)
    client.upload_fileobj(BytesIO(LARGE), session.bucket, key, Config=sizes)
    [entry] = client.list_objects_v2(Bucket=session.bucket, Prefix=key)["Contents"]
    partial = partial_file(entry, path)
    partial.write_bytes(LARGE[:1000])
    assert get(client, session.bucket, entry, path) == 1000
    assert path.read_bytes() == LARGE
    assert get(client, session.bucket, entry, path) == len(LARGE)
    path.unlink()
    partial.write_bytes(b"damaged")
    with pytest.raises(TransferError, match=r"expected content with the checksum .* found other content"):
        get(client, session.bucket, entry, path)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_upload_and_a_killed_download_go_on_where_they_stopped(
    service: Service, session: Session, tmp_path: Path, fresh: str
) -> None:
    content = LARGE * 5
    (tmp_path / "large.bin").write_bytes(content)
    place = {"Bucket": session.bucket, "Prefix": f"{session.prefix}/{fresh}/large.bin"}
    up = ["upload", str(tmp_path / "large.bin"), f"{fresh}/large.bin"]
    kill_when(begin(service, *up), lambda: len(parts_there(session, place)) >= 3)
    there = len(parts_there(session, place))
    told = re.search(r"large.bin: (\d+) parts of an earlier upload were there already", service.command(*up).stderr)
    # The server may still take in the parts that were on their way when the process was killed.
    assert told
    assert there <= int(told[1]) < 13
    down = ["download", f"{fresh}/large.bin", str(tmp_path / "back")]
    [entry] = session.storage.client.list_objects_v2(**place)["Contents"]
    partial = partial_file(entry, tmp_path / "back" / "large.bin")
    kill_when(begin(service, *down), lambda: partial.exists() and partial.stat().st_size > 10 * 2**20)
    size = partial.stat().st_size
    assert size < len(content)
    assert f"large.bin: {size} of {len(content)} bytes were there already" in service.command(*down).stderr
    assert (tmp_path / "back" / "large.bin").read_bytes() == content
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["large.bin"]


def test_the_parts_of_a_large_file_are_sent_side_by_side(
    service: Service, session: Session, tmp_path: Path, fresh: str
) -> None:
    storage = Client(str(service.state)).storage()[0]
    together = threading.Barrier(3)  # each part waits for the two others before it is sent

    def meet(**_: Any) -> None:
        together.wait(60)

    storage.client.meta.events.register("before-send.s3.UploadPart", meet)
    (tmp_path / "large.bin").write_bytes(LARGE)
    assert put(storage.client, session.bucket, tmp_path / "large.bin", f"{session.prefix}/{fresh}/large.bin") == 0
    assert (
        storage.client.get_object(Bucket=session.bucket, Key=f"{session.prefix}/{fresh}/large.bin")["Body"].read()
        == LARGE
    )


@pytest.mark.parametrize("content", [b"small", LARGE], ids=["small", "large"])
def test_what_was_damaged_on_its_way_is_refused(
    content: bytes, service: Service, session: Session, tmp_path: Path, fresh: str
) -> None:
    storage = Client(str(service.state)).storage()[0]

    def damage(request: Any, **_: Any) -> None:
        request.body = bytes(reversed(request.body.read()))

    for operation in ("PutObject", "UploadPart"):
        storage.client.meta.events.register(f"before-send.s3.{operation}", damage)
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(storage.client.exceptions.ClientError, match="BadDigest"):
        put(storage.client, session.bucket, tmp_path / "file", f"{session.prefix}/{fresh}/file")
    assert session.names(fresh) == []


def test_only_uploads_that_were_given_up_long_ago_are_aborted(
    service: Service, session: Session, tmp_path: Path, fresh: str
) -> None:
    client, place = session.storage.client, {"Bucket": session.bucket, "Prefix": f"{session.prefix}/{fresh}/"}
    begun = client.create_multipart_upload(Bucket=session.bucket, Key=f"{place['Prefix']}large.bin")["UploadId"]
    (tmp_path / "small").write_text("small")
    service.command("upload", str(tmp_path / "small"), f"{fresh}/small")
    assert [one["UploadId"] for one in client.list_multipart_uploads(**place)["Uploads"]] == [begun]
    abort_unfinished(client, session.bucket, place["Prefix"], timedelta(0))
    assert client.list_multipart_uploads(**place).get("Uploads", []) == []


def parts_there(session: Session, place: dict[str, str]) -> list[Any]:
    """The parts of the one unfinished upload at a place."""
    client = session.storage.client
    uploads = client.list_multipart_uploads(**place).get("Uploads", [])
    ids = {"Bucket": place["Bucket"], "Key": place["Prefix"]}
    return [part for one in uploads for part in client.list_parts(**ids, UploadId=one["UploadId"]).get("Parts", [])]


def begin(service: Service, *arguments: str) -> subprocess.Popen[bytes]:
    """A command of the command line that is not waited for."""
    return subprocess.Popen(service.command_line(*arguments), env=service.environment)


def kill_when(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    """Ends a process with SIGKILL at a moment."""
    wait_until(lambda: reached() or process.poll() is not None)
    assert process.poll() is None, "it ended before it could be killed"
    process.kill()
    process.wait()


@pytest.mark.parametrize("url", ["s3://gbdx-customer-data/gbdx/../alice/in", "s3://gbdx-customer-data/gbdx/a//b"])
def test_a_url_can_not_climb_out_of_its_prefix(url: str) -> None:
    with pytest.raises(StorageError, match="expected a relative path without"):
        Storage("gbdx-customer-data", region_name="us-east-1").check(url, "gbdx")


def test_another_bucket_is_read_only_when_it_is_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage("gbdx-customer-data", region_name="us-east-1")
    with pytest.raises(StorageError, match="or one that GBDX_INPUT_BUCKETS lists, found 'imagery'"):
        storage.check("s3://imagery/scene", "gbdx")
    monkeypatch.setenv("GBDX_INPUT_BUCKETS", "imagery other")
    assert storage.check("https://imagery.s3.amazonaws.com/scene", "gbdx") == Place("imagery", "scene")


def test_a_key_that_is_file_and_folder_at_once_is_named_and_the_services_folder_is_not(
    session: Session, tmp_path: Path, fresh: str
) -> None:
    url = session.put(f"{fresh}/in/name")
    # A server may refuse keys like in/name and in/name/below; the folder stands for what the second one makes here.
    (tmp_path / "in" / "name" / "below").mkdir(parents=True)
    with pytest.raises(StorageError, match="expected one that makes a file here, found: Is a directory") as refused:
        session.storage.fetch(url, session.prefix, tmp_path / "in")
    assert f"key '{session.prefix}/{fresh}/in/name'" in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


def test_files_behind_links_to_folders_are_kept_and_links_in_a_circle_end(session: Session, fresh: str) -> None:
    links = (
        "os.makedirs(work + 'output/out/v2/deep'); os.chdir(work + 'output/out')\n"
        "open('v2/deep/a.txt', 'w').write('a')\n"
        "os.symlink('v2', 'latest'); os.symlink('v2/deep/a.txt', 'a.txt'); os.symlink('../../v2', 'v2/deep/back')\n"
        "os.makedirs('one'); os.makedirs('two'); os.symlink('../two', 'one/two'); os.symlink('../one', 'two/one')\n"
        "open('one/1', 'w').write('1')"
    )
    session.register(definition(fresh, [port("a", "string", required=False)], [port("out")], script(links)))
    found = session.run(task("links", fresh, persist={"out": f"{fresh}/out"}))
    assert states(found) == {"links": "complete/succeeded"}, found["tasks"][0]["note"]
    expected = ["a.txt", "latest/deep/a.txt", "one/1", "two/one/1", "v2/deep/a.txt"]
    assert sorted(session.names(f"{fresh}/out")) == expected
    assert session.text(f"{fresh}/out/latest/deep/a.txt") == "a"


def test_links_that_multiply_folders_without_end_are_refused(session: Session, tmp_path: Path, fresh: str) -> None:
    for number in range(20):  # 2 ** 20 ways lead to the last one
        (tmp_path / str(number)).mkdir()
        for name in "ab":
            (tmp_path / str(number) / name).symlink_to(f"../{number + 1}")
    with pytest.raises(StorageError, match="expected at most 10000 folders behind links, found more"):
        session.storage.keep(tmp_path, f"{session.prefix}/{fresh}")
    assert session.names(fresh) == []


def test_a_task_reads_what_only_the_service_could_read(own_service: Service, tmp_path: Path, fresh: str) -> None:
    closed = tmp_path / "root" / "in" / "closed"
    closed.mkdir(parents=True, mode=0o700)
    (closed / "b.txt").write_text("b")
    (closed / "b.txt").chmod(0o600)
    own_service.environment["GBDX_FILE_ROOTS"] = str(tmp_path / "root")
    old = os.umask(0o077)
    try:
        own_service.start()
    finally:
        os.umask(old)
    session = Session(own_service.client())
    read = "strings['said'] = open(work + 'input/s3/sub/a.txt').read() + open(work + 'input/file/closed/b.txt').read()"
    session.register(definition(fresh, [port("s3"), port("file")], [port("said", "string")], script(read)))
    session.put(f"{fresh}/in/sub/a.txt", b"a")
    inputs = {"s3": f"s3://{session.bucket}/{session.prefix}/{fresh}/in", "file": closed.parent.as_uri()}
    [only] = session.run(task("reads", fresh, inputs))["tasks"]
    assert (only["state"]["event"], only["outputs"][0]["value"]) == ("succeeded", "ab"), only["note"]
    assert (closed.stat().st_mode & 0o777, (closed / "b.txt").stat().st_mode & 0o777) == (0o700, 0o600)


def test_an_output_that_its_task_has_closed_is_kept_and_read_by_the_next(session: Session, fresh: str) -> None:
    close = (
        "os.makedirs(work + 'output/out/sub'); path = work + 'output/out/sub/a.txt'\n"
        "open(path, 'w').write('a'); os.chmod(path, 0); os.chmod(work + 'output/out/sub', 0)"
    )
    read = "strings['said'] = open(work + 'input/in/sub/a.txt').read()"
    session.register(definition(f"{fresh}-closes", [port("a", "string", required=False)], [port("out")], script(close)))
    session.register(definition(f"{fresh}-reads", [port("in")], [port("said", "string")], script(read)))
    first = task("first", f"{fresh}-closes", persist={"out": f"{fresh}/out"})
    found = session.run(first, task("second", f"{fresh}-reads", {"in": ("first:out",)}))
    assert states(found) == {"first": "complete/succeeded", "second": "complete/succeeded"}, found
    assert found["tasks"][1]["outputs"][0]["value"] == "a"
    assert session.text(f"{fresh}/out/sub/a.txt") == "a"


def test_keys_of_the_operators_storage_are_lent_to_the_accounts_named_and_to_no_other(tmp_path: Path) -> None:
    away = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "GBDX_S3_LEND": "alice=AKEY:a+/secret= bob=B:b"}
    running = Service(tmp_path, AWS_ACCESS_KEY_ID="service", AWS_SECRET_ACCESS_KEY="x", **away)
    password = running.command("account", "alice").stdout.split("password ")[1].split()[0]
    running.start()
    try:
        http = running.client()
        refused = http.get("/s3creds/v1/prefix")
        form = {"grant_type": "password", "username": "alice", "password": password}
        token = http.post("/auth/v1/oauth/token/", data=form).json()["access_token"]
        lent = running.client(token).get("/s3creds/v1/prefix").json()
        environment = running.command("client-env")
    finally:
        running.stop()
    assert refused.status_code == 403
    assert "its operator has lent account 'gbdx' no keys (GBDX_S3_LEND=" in refused.json()["message"]
    assert (lent["S3_access_key"], lent["S3_secret_key"]) == ("AKEY", "a+/secret=")
    assert (lent["prefix"], lent["endpoint"]) == ("alice", "http://127.0.0.1:9")
    assert "GBDX_TOKEN" in environment.stdout
    assert "AWS_ACCESS_KEY_ID" not in environment.stdout
