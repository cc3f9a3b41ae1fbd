"""One file to object storage and back: in parts, going on where an earlier try stopped, and compared by checksum.

On the way up botocore sends a CRC32 with each body, and the server compares. What is there already, and what has to
come down, S3's ETag tells: the MD5 of an object, or of an object in parts the MD5 of its parts' MD5s and their number
(how S3 computes it: "Checking object integrity", Amazon S3 User Guide).
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

PART = 8 * 2**20
PARALLEL = 4  # parts of one file at a time
MOST_PARTS = 10_000  # S3's own limit
MEBIBYTE = 2**20


class TransferError(OSError):
    """A file that did not come whole; another try may help."""


def part_size(size: int) -> int:
    """Bytes of the parts that a file of some size is sent in."""
    return max(PART, -(-size // (MOST_PARTS * MEBIBYTE)) * MEBIBYTE)


def stretch(path: Path, start: int, length: int) -> Any:
    """A stretch of a file as a file of its own, which is never in memory as a whole."""
    # Here, because it takes as long to import as boto3.
    from s3transfer.utils import ReadFileChunk  # type: ignore[import-untyped]

    return ReadFileChunk.from_filename(path, start, length)


def md5_of(path: Path, start: int = 0, length: int = sys.maxsize) -> bytes:
    """The MD5 of a stretch of a file."""
    digest = hashlib.md5(usedforsecurity=False)
    with stretch(path, start, length) as file:
        while block := file.read(MEBIBYTE):
            digest.update(block)
    return digest.digest()


# --- up


def put(client: Any, bucket: str, path: Path, key: str, go_on: Callable[[], None] = lambda: None) -> int:
    """Uploads a file; returns how many of its parts an earlier, broken upload had brought already.

    go_on: called before each part; what it raises ends the upload.

    Raises:
        botocore's errors: storage that doesn't answer or refuses, because the content was damaged on its way, too.
    """
    size, place = path.stat().st_size, {"Bucket": bucket, "Key": key}
    part = part_size(size)
    go_on()
    if size <= part:
        with path.open("rb") as file:
            client.put_object(**place, Body=file)
        return 0
    place["UploadId"], there = unfinished(client, place, path, part)

    def send(number: int) -> str:
        go_on()
        with stretch(path, (number - 1) * part, part) as body:
            return str(client.upload_part(**place, PartNumber=number, Body=body)["ETag"])

    missing = [number for number in range(1, -(-size // part) + 1) if number not in there]
    with ThreadPoolExecutor(PARALLEL) as pool:
        sent = there | dict(zip(missing, pool.map(send, missing), strict=True))
    parts = [{"PartNumber": number, "ETag": sent[number]} for number in sorted(sent)]
    client.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
    return len(there)


def unfinished(client: Any, place: dict[str, str], path: Path, part: int) -> tuple[str, dict[int, str]]:
    """An upload of this very file that was begun: its id, and number -> ETag of the parts there; else a new one."""
    try:
        uploads = client.list_multipart_uploads(Bucket=place["Bucket"], Prefix=place["Key"]).get("Uploads", [])
    except ClientError:  # keys that may write but not list
        uploads = []
    for upload in uploads:
        if upload["Key"] != place["Key"]:
            continue
        pages = client.get_paginator("list_parts").paginate(**place, UploadId=upload["UploadId"])
        found = {one["PartNumber"]: one["ETag"] for page in pages for one in page.get("Parts", [])}
        if all(tag.strip('"') == md5_of(path, (number - 1) * part, part).hex() for number, tag in found.items()):
            return upload["UploadId"], found
    return client.create_multipart_upload(**place)["UploadId"], {}


def abort_unfinished(client: Any, bucket: str, prefix: str, age: timedelta) -> None:
    """Aborts the uploads below a prefix that are older than this and never ended: their parts take room."""
    with contextlib.suppress(ClientError):  # keys that may write but not list
        for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix):
            for upload in page.get("Uploads", []):
                if datetime.now(UTC) - upload["Initiated"] > age:
                    client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])


# --- down


def get(client: Any, bucket: str, entry: dict[str, Any], path: Path, go_on: Callable[[], None] = lambda: None) -> int:
    """Downloads an object into a file; returns how many of its bytes were there already.

    entry: the object's Key, Size and ETag, as S3 lists them; go_on: called before each MiB; what it raises ends it.

    Raises:
        TransferError: not whole, or damaged.
        botocore's errors: storage that doesn't answer or refuses.
    """
    place = {"Bucket": bucket, "Key": entry["Key"]}
    if path.is_file() and path.stat().st_size == entry["Size"] and has_etag(client, place, entry["ETag"], path):
        return int(entry["Size"])
    partial = partial_file(entry, path)
    there = partial.stat().st_size if partial.exists() else 0
    if there >= entry["Size"]:
        partial.unlink(missing_ok=True)
        there = 0
    encrypted = append_rest(client, place, entry, partial, go_on)
    if partial.stat().st_size != entry["Size"]:
        raise TransferError(f"{entry['Key']}: expected {entry['Size']} bytes, found {partial.stat().st_size}")
    if not encrypted and not has_etag(client, place, entry["ETag"], partial):
        partial.unlink()
        raise TransferError(f"{entry['Key']}: expected content with the checksum {entry['ETag']}, found other content")
    partial.replace(path)
    return there


def partial_file(entry: dict[str, Any], path: Path) -> Path:
    """Where a file is until it is whole; named by its content, so that nothing goes on with what has been replaced."""
    name = hashlib.sha256(f"{entry['Key']}\0{entry['ETag']}".encode()).hexdigest()[:24]
    return path.with_name(f".{name}.part")


def append_rest(
    client: Any, place: dict[str, Any], entry: dict[str, Any], partial: Path, go_on: Callable[[], None]
) -> bool:
    """Appends what is missing, as long as each try brings something; returns whether the ETag is no MD5."""
    while True:
        there = partial.stat().st_size if partial.exists() else 0
        rest = {"Range": f"bytes={there}-"} if there else {}
        try:
            answer = client.get_object(**place, IfMatch=entry["ETag"], **rest)
            with partial.open("ab") as file:
                while block := answer["Body"].read(MEBIBYTE):
                    go_on()
                    file.write(block)
            return answer.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in answer
        except BotoCoreError:
            if not partial.exists() or partial.stat().st_size == there:
                raise


def has_etag(client: Any, place: dict[str, Any], wanted: str, path: Path) -> bool:
    """Whether a file is what an ETag stands for. Parts of a size that nobody tells can't be compared: then yes."""
    known = re.fullmatch(r'"?([0-9a-f]{32})(?:-([0-9]+))?"?', wanted)
    if known is None:
        return True
    if known[2] is None:
        return md5_of(path).hex() == known[1]
    try:
        part = client.head_object(**place, PartNumber=1)["ContentLength"]
    except ClientError:
        return True
    digests = [md5_of(path, start, part) for start in range(0, path.stat().st_size, part or 1)]
    whole = hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()
    return len(digests) != int(known[2]) or whole == known[1]
