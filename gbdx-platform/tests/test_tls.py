"""The service with a certificate of its own making."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gbdx_platform.settings import read_credentials
from live_service import API, Service


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    found = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=gbdx-platform"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-out", found[0], "-keyout", found[1]),
        ],
        check=True,
        capture_output=True,
    )
    return found


@pytest.fixture
def secure(certificate: tuple[Path, Path], tmp_path: Path) -> Iterator[Service]:
    """A service behind it, which listens on every address; object storage plays no part here."""
    state = tmp_path / "state"
    state.mkdir()
    options = ("--host", "0.0.0.0", "--certificate", str(certificate[0]), "--key", str(certificate[1]))
    environment = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_DEFAULT_REGION": "us-east-1"}
    running = Service(state, *options, SSL_CERT_FILE=str(certificate[0]), **environment)
    running.start()
    yield running
    assert running.stop() == 0


def test_a_certificate_that_is_none_is_refused_with_its_name(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    key = str(certificate[1])
    refused = Service(state).command("serve", "--certificate", str(broken), "--key", key, check=False)
    expected = f"certificate: expected PEM files with a certificate and its key, {broken} and {key}, found: "
    assert (refused.returncode, refused.stderr.startswith(expected)) == (2, True), refused.stderr


def test_a_service_with_a_certificate_speaks_tls_and_nothing_else(
    secure: Service, certificate: tuple[Path, Path]
) -> None:
    known = read_credentials(secure.state)
    url = known["url"].replace("0.0.0.0", "127.0.0.1")
    assert url.startswith("https://")
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    assert httpx.get(f"{url}{API}/heartbeat", verify=trusting).json() == "ok"
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{url}{API}/heartbeat")
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{url.replace('https', 'http')}{API}/heartbeat")
    # The command line trusts what SSL_CERT_FILE names.
    secure.environment |= {"GBDX_URL": url, "GBDX_TOKEN": known["token"]}
    assert secure.command("list").stdout == ""
