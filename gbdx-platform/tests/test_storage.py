"""Object storage: which URLs mean what, keys that try to leave their folder, more than 1,000 keys."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gbdx_platform.storage import Place, Storage, StorageError, parse, safe_relative
from live_service import Session


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://bucket/some/key", Place("bucket", "some/key")),
        ("s3://bucket/what?is#this", Place("bucket", "what?is#this")),
        ("https://bucket.s3.amazonaws.com/some/a%20key", Place("bucket", "some/a key")),
        ("http://my.bucket.s3.us-west-2.amazonaws.com/key", Place("my.bucket", "key")),
        ("http://s3.amazonaws.com/bucket/some/key", Place("bucket", "some/key")),
        ("file:///data/in", Place("", "/data/in")),
    ],
)
def test_a_url_means_a_bucket_and_a_key_or_a_path(url: str, place: Place) -> None:
    assert parse(url) == place


@pytest.mark.parametrize(
    "url", ["", "key", "/data", "s3://", "ftp://host/key", "https://example.com/bucket/key", "file://host/x"]
)
def test_another_url_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(StorageError, match="expected s3://bucket/key, an http"):
        parse(url)


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
    content = bytes(range(256)) * 4 * 2**10 * 20  # 20 MiB: several parts
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "large.bin").write_bytes(content)
    assert session.storage.keep(tmp_path / "out", f"{session.prefix}/{fresh}") == 1
    url = f"s3://{session.bucket}/{session.prefix}/{fresh}/large.bin"
    assert session.storage.fetch(url, session.prefix, tmp_path / "back") == 1
    assert (tmp_path / "back" / "large.bin").read_bytes() == content


def test_a_key_that_is_file_and_folder_at_once_is_a_sentence(session: Session, tmp_path: Path, fresh: str) -> None:
    url = session.put(f"{fresh}/in/name")
    try:
        session.put(f"{fresh}/in/name/below")
    except session.storage.client.exceptions.ClientError:
        return  # this S3 server refuses such keys itself
    with pytest.raises(StorageError, match="expected keys that make files and folders"):
        session.storage.fetch(url, session.prefix, tmp_path / "in")
