"""The local S3 by itself: who may reach what it keeps."""

from __future__ import annotations

import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import psutil
import pytest
from gbdx_platform.local_s3 import PORTS, LocalS3
from waiting import wait_until

BUCKET = "data-of-all"


@pytest.fixture
def local_s3(tmp_path: Path) -> Iterator[LocalS3]:
    """A running one, in a folder that another program had made for everybody to read, with a comma in its path."""
    state = tmp_path / "state, of mine"
    (state / "s3" / "data").mkdir(parents=True, mode=0o755)
    running = LocalS3(state, BUCKET, [])
    running.start()
    yield running
    running.stop()


@pytest.fixture
def client(local_s3: LocalS3) -> Any:
    """The service's own client of it, with one object there."""
    access, secret = local_s3.admin
    keys = {"aws_access_key_id": access, "aws_secret_access_key": secret, "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=local_s3.endpoint, **keys)
    client.create_bucket(Bucket=BUCKET)
    client.put_object(Bucket=BUCKET, Key="alice/mine.txt", Body=b"secret")
    return client


def listening(local_s3: LocalS3) -> list[int]:
    """The ports that its process listens on, all of which are the loopback's."""
    assert local_s3.process
    connections = psutil.Process(local_s3.process.pid).net_connections("inet")
    found = [one.laddr for one in connections if one.status == psutil.CONN_LISTEN]
    assert {address.ip for address in found} == {"127.0.0.1"}
    return [address.port for address in found]


def sockets(local_s3: LocalS3) -> set[Path]:
    """The Unix sockets on which its process offers the same."""
    assert local_s3.process
    connections = psutil.Process(local_s3.process.pid).net_connections("unix")
    return {Path(one.laddr) for one in connections if str(one.laddr).endswith(".sock")}


def greet(port: int) -> None:
    """Greets a port by TLS, without a certificate, and waits for a word."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain, context.wrap_socket(plain) as secure:
        secure.recv(1)


def test_nobody_reads_or_deletes_an_object_without_credentials_at_any_port(local_s3: LocalS3, client: Any) -> None:
    wait_until(lambda: len(listening(local_s3)) == len(PORTS))
    for port in listening(local_s3):
        for method in ("GET", "DELETE"):
            for path in (f"/{BUCKET}/alice/mine.txt", f"/buckets/{BUCKET}/alice/mine.txt", "/", "/status"):
                try:
                    answer = httpx.request(method, f"http://127.0.0.1:{port}{path}")
                except httpx.TransportError:
                    continue  # a port that speaks no HTTP
                assert b"secret" not in answer.content
                # S3's own says to everybody that it is well.
                assert answer.is_error or (port, path) == (local_s3.port, "/status"), (port, method, path)
        if port != local_s3.port:
            with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
                greet(port)
    assert client.get_object(Bucket=BUCKET, Key="alice/mine.txt")["Body"].read() == b"secret"


def test_what_the_local_s3_keeps_is_closed_to_other_users(local_s3: LocalS3, client: Any) -> None:
    wait_until(lambda: len(listening(local_s3)) == len(PORTS))
    assert [stat.S_IMODE(path.stat().st_mode) for path in sockets(local_s3)] == [0o700] * 7
    folders = [local_s3.folder, local_s3.folder / "data", local_s3.folder / "logs"]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o700] * 3
    for name in ("identities.json", "security.toml", "pair.pem", "data/filerldb2/00/CURRENT"):
        assert stat.S_IMODE((local_s3.folder / name).stat().st_mode) == 0o600, name


def test_a_local_s3_that_is_stopped_leaves_no_sockets_behind(local_s3: LocalS3, client: Any) -> None:
    wait_until(lambda: len(listening(local_s3)) == len(PORTS))
    paths = sockets(local_s3)
    assert len(paths) == 7
    local_s3.stop()
    assert [path for path in paths if path.exists()] == []
