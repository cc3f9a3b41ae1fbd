"""One file to object storage and back: in parts, going on where an earlier try stopped, and compared by checksum.

S3's ETag is what everything hangs on: the MD5 of an object, or of an object in parts the MD5 of its parts' MD5s and
their number (how S3 computes it: "Checking object integrity", Amazon S3 User Guide).
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

PART = 8 * 2**20
MOST_PARTS = 10_000  # S3's own limit
MEBIBYTE = 2**20


class TransferError(OSError):
    """A file that did not come whole; another try may help."""


def part_size(size: int) -> int:
    """Bytes of the parts that a file of some size is sent in."""
    return max(PART, -(-size // (MOST_PARTS * MEBIBYTE)) * MEBIBYTE)


def md5_of(path: Path, start: int = 0, length: int | None = None) -> bytes:
    """The MD5 of a stretch of a file."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        file.seek(start)
        left = path.stat().st_size - start if length is None else length
        while block := file.read(min(left, MEBIBYTE)):
            digest.update(block)
            left -= len(block)
    return digest.digest()


def etag(path: Path, part: int | None) -> str:
    """The ETag of a file that is sent in parts of some bytes; None: as a whole."""
    if part is None:
        return md5_of(path).hex()
    digests = [md5_of(path, start, part) for start in range(0, path.stat().st_size, part)]
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


# --- up


def put(client: Any, bucket: str, path: Path, key: str) -> int:
    """Uploads a file; returns how many of its parts an earlier, broken upload had brought already.

    Raises:
        botocore's errors: storage that doesn't answer or refuses, because the content was damaged on its way, too.
    """
    size = path.stat().st_size
    part = part_size(size)
    if size <= part:
        digest = base64.b64encode(md5_of(path)).decode()
        with path.open("rb") as file:
            client.put_object(Bucket=bucket, Key=key, Body=file, ContentMD5=digest)
        return 0
    upload, there = unfinished(client, bucket, path, key)
    sent = dict(there)
    for number, start in enumerate(range(0, size, part), 1):
        if number not in there:
            sent[number] = put_part(
                client, path, start, part, Bucket=bucket, Key=key, UploadId=upload, PartNumber=number
            )
    parts = [{"PartNumber": number, "ETag": sent[number]} for number in sorted(sent)]
    client.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    return len(there)


def put_part(client: Any, path: Path, start: int, length: int, **place: Any) -> str:
    """Uploads one part; returns its ETag."""
    with path.open("rb") as file:
        file.seek(start)
        content = file.read(length)
    digest = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
    return str(client.upload_part(Body=content, ContentMD5=digest, **place)["ETag"])


def unfinished(client: Any, bucket: str, path: Path, key: str) -> tuple[str, dict[int, str]]:
    """An upload of this very file that was begun: its id, and number -> ETag of the parts there; else a new one."""
    part = part_size(path.stat().st_size)
    try:
        uploads = client.list_multipart_uploads(Bucket=bucket, Prefix=key).get("Uploads", [])
    except ClientError:  # keys that may write but not list
        uploads = []
    for upload in uploads:
        if upload["Key"] != key:
            continue
        pages = client.get_paginator("list_parts").paginate(Bucket=bucket, Key=key, UploadId=upload["UploadId"])
        found = {one["PartNumber"]: one["ETag"] for page in pages for one in page.get("Parts", [])}
        if all(tag.strip('"') == md5_of(path, (number - 1) * part, part).hex() for number, tag in found.items()):
            return upload["UploadId"], found
    return client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"], {}


# --- down


def get(client: Any, bucket: str, entry: dict[str, Any], path: Path) -> int:
    """Downloads an object into a file; returns how many of its bytes were there already.

    entry: the object's Key, Size and ETag, as S3 lists them.

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
    encrypted = append_rest(client, place, entry, partial)
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


def append_rest(client: Any, place: dict[str, Any], entry: dict[str, Any], partial: Path) -> bool:
    """Appends what is missing, as long as each try brings something; returns whether the ETag is no MD5."""
    while True:
        there = partial.stat().st_size if partial.exists() else 0
        rest = {"Range": f"bytes={there}-"} if there else {}
        try:
            answer = client.get_object(**place, IfMatch=entry["ETag"], **rest)
            with partial.open("ab") as file:
                shutil.copyfileobj(answer["Body"], file, MEBIBYTE)
            return answer.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in answer
        except BotoCoreError:
            if not partial.exists() or partial.stat().st_size == there:
                raise


def has_etag(client: Any, place: dict[str, Any], wanted: str, path: Path) -> bool:
    """Whether a file is what an ETag stands for. Parts of a size that nobody tells can't be compared: then yes."""
    known = re.fullmatch(r'"?([0-9a-f]{32}(-[0-9]+)?)"?', wanted)
    if known is None:
        return True
    if known[2] is None:
        return etag(path, None) == known[1]
    try:
        part = client.head_object(**place, PartNumber=1)["ContentLength"]
    except ClientError:
        return True
    parts = -(-path.stat().st_size // part)
    return known[2] != f"-{parts}" or etag(path, part) == known[1]
