"""Object storage: s3:// and the old http(s):// URLs of S3 through boto3, file:// under allowed roots."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from gbdx_platform import transfers
from gbdx_platform.task_definition import quoted
from gbdx_platform.task_verdict import HALF_PAIR

PARALLEL = 8  # files at a time
MOST_LINKED = 10_000  # folders that links lead to, which can lead to each other in more ways than there are files
LONGEST_URL = 4000  # characters; a key has 1,024 bytes at most, each of which may be quoted as %20
# A key of s3:// may hold ? and #, and is no quoted one. A bucket's length has its limit here, so that no text is
# looked through once for each of its letters.
URLS = (
    r"s3://(?P<bucket>[^/]+)/?(?P<key>.*)",
    r"https?://(?P<bucket>[^/?#]{1,255})\.s3[.-][a-z0-9.-]*amazonaws\.com(/+(?P<key>[^?#]*))?([?#].*)?",
    r"https?://s3[a-z0-9.-]*\.amazonaws\.com/+(?P<bucket>[^/?#]+)/(?P<key>[^?#]*)([?#].*)?",
    r"file://(?P<bucket>)(localhost)?(?P<key>/[^?#]*)([?#].*)?",
)


class StorageError(ValueError):
    """Data that can't be fetched or kept; the message is a sentence with the URL."""


@dataclass(frozen=True)
class Place:
    """Where a URL points: a bucket and a key in it, or a path when the bucket is empty."""

    bucket: str
    key: str


def parse(url: str) -> Place:
    """Where a URL points.

    Raises:
        StorageError: no scheme that is known, or no bucket, or too long.
    """
    if len(url) > LONGEST_URL:
        raise StorageError(f"{quoted(url)}: expected a URL of at most {LONGEST_URL} characters, found {len(url)}")
    for pattern in URLS:
        if found := re.fullmatch(pattern, url, re.DOTALL):
            parts = found.groupdict(default="")
            return Place(parts["bucket"], parts["key"] if url.startswith("s3:") else unquote(parts["key"]))
    raise StorageError(f"{url!r}: expected s3://bucket/key, an http(s) URL of S3, or file:///path")


def safe_relative(name: str) -> PurePosixPath:
    """A key below a prefix as a relative path that can't leave its folder.

    Raises:
        StorageError: "..", an absolute path, empty parts, or a NUL in it.
    """
    parts = name.split("/")
    if not name or "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise StorageError(f"key {name!r}: expected a relative path without '..', found one that leaves its folder")
    return PurePosixPath(*parts)


def files_below(folder: Path) -> Iterator[Path]:
    """The files below a resolved folder, also those that links lead to; a link back to where it lies leads nowhere.

    Raises:
        StorageError: links that lead to folders with links again and again, to more than MOST_LINKED.
    """
    linked, pending = 0, [(folder, {folder})] if folder.is_dir() else []
    while pending:
        current, around = pending.pop()
        for path in current.iterdir():
            if path.is_file():
                yield path
            elif path.is_dir() and (real := path.resolve()) not in around:
                linked += real != path
                if linked > MOST_LINKED:
                    raise StorageError(f"expected at most {MOST_LINKED} folders behind links, found more")
                pending.append((path, around | {real}))


class Storage:
    """One account of object storage. endpoint None: as boto3's environment says. tell: hears of what went on."""

    def __init__(
        self,
        bucket: str,
        file_roots: tuple[Path, ...] = (),
        tell: Callable[[str], None] = lambda text: None,
        **client: Any,
    ) -> None:
        # Here, because boto3 takes half a second to import, which most commands need not spend.
        import boto3
        from botocore.config import Config

        settings = Config(
            retries={"max_attempts": 3, "mode": "standard"},
            connect_timeout=5,
            read_timeout=60,
            max_pool_connections=50,
            s3={"addressing_style": "path"},
        )
        self.client = boto3.session.Session().client("s3", config=settings, **client)
        self.bucket, self.file_roots, self.tell = bucket, file_roots, tell

    def check(self, url: str, account: str) -> Place:
        """Where a URL points, if this account may read it: in the service's own bucket only below its own prefix.

        Raises:
            StorageError: not parsed, another account's, a bucket or a file that the service is not told to lend.
        """
        place = parse(url)
        if place.bucket == self.bucket:
            # Without "..", because a server that keeps keys as files may take them for steps up.
            safe_relative(place.key.rstrip("/"))
            if not f"{place.key}/".startswith(f"{account}/"):
                raise StorageError(f"{url!r}: expected a key below your prefix {account}/, found {place.key!r}")
        elif place.bucket and place.bucket not in os.environ.get("GBDX_INPUT_BUCKETS", "").split():
            # The service reads with its own keys, which may reach more than an account should see.
            raise StorageError(
                f"{url!r}: expected the bucket {self.bucket!r}, or one that GBDX_INPUT_BUCKETS lists, "
                f"found {place.bucket!r}"
            )
        elif not place.bucket and not any(Path(place.key).resolve().is_relative_to(root) for root in self.file_roots):
            raise StorageError(f"{url!r}: expected a folder below the roots in GBDX_FILE_ROOTS, found another place")
        return place

    def fetch(self, url: str, account: str, folder: Path, go_on: Callable[[], None] = lambda: None) -> int:
        """Copies everything below a URL (or the one object it names) into a folder; returns the number of files.

        Files of an earlier try that are whole are kept, and a file that is not goes on where it stopped.
        go_on: called again and again, from several threads; what it raises ends the transfer.

        Raises:
            StorageError: nothing there, a key that leaves the folder or that the disk doesn't take as a file.
            TransferError, botocore's errors: storage that doesn't answer, refuses, or breaks off.
        """
        place = self.check(url, account)
        if not place.bucket:
            return self.fetch_files(url, Path(place.key).resolve(), folder)
        wanted = [(entry, folder / safe_relative(name)) for entry, name in self.objects(place)]
        if not wanted:
            raise StorageError(f"{url!r}: expected at least one object there, found none")

        def one(wanted: tuple[dict[str, Any], Path]) -> None:
            entry, path = wanted
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if there := transfers.get(self.client, place.bucket, entry, path, go_on):
                    self.tell(f"{path}: {there} of {entry['Size']} bytes were there already")
            except transfers.TransferError:
                raise
            except OSError as error:  # whose text has the service's own path; a key may be file and folder at once
                raise StorageError(
                    f"key {entry['Key']!r}: expected one that makes a file here, found: {error.strerror}"
                ) from None

        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(one, wanted))
        return len(wanted)

    def fetch_files(self, url: str, source: Path, folder: Path) -> int:
        """The same for file://, from the beginning at each try.

        Links stay links: what they lead to out of the source, or by an absolute path, is not there for the task.
        """
        if not source.is_file() and not source.is_dir():
            raise StorageError(f"{url!r}: expected a folder or a file there, found neither")
        try:
            if source.is_dir():
                shutil.copytree(source, folder, symlinks=True, dirs_exist_ok=True)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, folder / source.name)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)  # over links that are there already no other try could copy
            # shutil's has (source, target, what was wrong) of each file; the target is the service's own.
            said = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror
            raise transfers.TransferError(f"{url!r}: expected files that can be copied, found: {said}") from None
        return sum(1 for path in folder.rglob("*") if path.is_file())

    def objects(self, place: Place) -> Iterator[tuple[dict[str, Any], str]]:
        """(entry, name below the place) of the objects there; any number. Keys that end in / only mark folders."""
        prefix = place.key.rstrip("/")
        below = f"{prefix}/" if prefix else ""
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=prefix):
            for entry in page.get("Contents", []):
                key = entry["Key"]
                if key == place.key and not key.endswith("/"):
                    yield entry, key.rsplit("/", 1)[-1]
                elif key.startswith(below) and not key.endswith("/"):
                    yield entry, key.removeprefix(below)

    def keep(self, folder: Path, prefix: str, go_on: Callable[[], None] = lambda: None) -> int:
        """Uploads the files below a folder to the service's bucket; returns how many. go_on: see fetch.

        Links were found to stay in the folder by the task's verdict; what they point at is uploaded in their place.

        Raises:
            StorageError: a name that no key can be.
            botocore's errors: storage that doesn't answer, or refuses.
        """
        folder = folder.resolve()
        names = [str(path.relative_to(folder)) for path in files_below(folder)]
        if odd := [name for name in names if HALF_PAIR.search(name)]:
            raise StorageError(f"expected names of files in UTF-8, found {odd[0]!r}")
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(lambda name: self.put(folder / name, f"{prefix}/{name}", go_on), names))
        return len(names)

    def put(self, path: Path, key: str, go_on: Callable[[], None] = lambda: None) -> None:
        """Uploads one file to the service's bucket. go_on: see fetch."""
        if there := transfers.put(self.client, self.bucket, path, key, go_on):
            self.tell(f"{path}: {there} parts of an earlier upload were there already")
