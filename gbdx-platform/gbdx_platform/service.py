"""Starts and stops the whole service: state, accounts, S3, the runner, HTTP."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from sqlalchemy.exc import SQLAlchemyError

from gbdx_platform import accounts, containers
from gbdx_platform.accounts import DEFAULT_ACCOUNT
from gbdx_platform.api import app, live
from gbdx_platform.database import Store
from gbdx_platform.local_s3 import LocalS3
from gbdx_platform.runs import Runner
from gbdx_platform.settings import LOOPBACK, ServiceError, Settings, read_credentials, write_private
from gbdx_platform.storage import Storage

# Of every answer, an error of the server's own included.
HEADERS = [("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-cache")]


@contextlib.contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Holds the folder of state, so that no second service works on it.

    Raises:
        ServiceError: another one does.
    """
    with (settings.state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ServiceError(f"state: expected {settings.state} to be free, found another service on it") from None
        yield


def default_credentials(settings: Settings, store: Store) -> dict[str, str]:
    """What the command line of this user logs in with: the first account, and a new token at each start."""
    password = read_credentials(settings.state).get("password", "")
    if not accounts.account_of_password(store, DEFAULT_ACCOUNT, password):
        password = accounts.add_account(store, DEFAULT_ACCOUNT)
    token = accounts.issue_tokens(store, DEFAULT_ACCOUNT)["access_token"]
    return {"username": DEFAULT_ACCOUNT, "password": password, "token": token}


def make_storage(settings: Settings, local: LocalS3 | None) -> Storage:
    """Storage with its bucket."""
    if local is None:
        return Storage(settings.bucket, settings.file_roots)
    keys: dict[str, Any] = {"aws_access_key_id": local.admin[0], "aws_secret_access_key": local.admin[1]}
    storage = Storage(
        settings.bucket, settings.file_roots, endpoint_url=local.endpoint, region_name="us-east-1", **keys
    )
    known = storage.client.exceptions
    with contextlib.suppress(known.BucketAlreadyExists, known.BucketAlreadyOwnedByYou):
        storage.client.create_bucket(Bucket=settings.bucket)
    return storage


def ended(signum: int, frame: object) -> None:
    """SIGTERM ends the service in an orderly way; uvicorn raises the signal once more when it has stopped."""
    raise SystemExit(0)


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """Tells what is wrong with a database that can't be used at the start.

    Raises:
        ServiceError: in place of the library's own error.
    """
    try:
        yield
    except (SQLAlchemyError, ImportError) as error:
        expected = "database: expected platform.sqlite in the folder of state, or what DATABASE_URL names, to be one"
        raise ServiceError(f"{expected}, found: {getattr(error, 'orig', None) or error}") from None


def bound(settings: Settings) -> socket.socket:
    """A socket that has the service's address, and doesn't listen yet.

    Raises:
        ServiceError: the address is another one's, or none of this machine's.
    """
    # Of TCP by name: only then asyncio sends an answer's last part at once, not 40 ms later.
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((settings.host, settings.port))
    except OSError as error:
        found.close()
        expected = f"address: expected {settings.host}, port {settings.port}, to be this machine's and free"
        raise ServiceError(f"{expected}, found: {error.strerror}") from None
    return found


def check_engine(settings: Settings) -> None:
    """Refuses an engine that could run nothing, and limits that it could not be told.

    Raises:
        ServiceError: no container engine answers; Toil is not there, or not with those arguments; a limit is no number.
    """
    containers.limits()
    containers.pull_timeout()
    try:
        containers.engine()
    except containers.ImageError as error:
        raise ServiceError(str(error)) from None
    if settings.engine != "toil":
        return
    from gbdx_platform import toil_engine

    try:
        toil_engine.check(settings.engine_arguments, settings.state)
    except toil_engine.ToilError as error:
        raise ServiceError(str(error)) from None


def serve(settings: Settings, certificate: str | None = None, key: str | None = None, plain: bool = False) -> None:
    """Serves until SIGTERM or Ctrl-C; everything that was started ends with it.

    Raises:
        ServiceError: it can't start.
    """
    if settings.host not in LOOPBACK and not certificate and not plain:
        raise ServiceError(
            f"host: expected a loopback address or a certificate, found {settings.host} without TLS "
            "(--plain-http allows it, behind a proxy that does TLS)"
        )
    check_engine(settings)
    signal.signal(signal.SIGTERM, ended)
    config = uvicorn.Config(
        app, settings.host, settings.port, log_level="warning", access_log=False, ssl_certfile=certificate,
        ssl_keyfile=key, timeout_graceful_shutdown=5, server_header=False, headers=HEADERS,
    )  # fmt: skip
    try:
        config.load()
    except OSError as error:
        expected = f"certificate: expected PEM files with a certificate and its key, {certificate} and {key}"
        raise ServiceError(f"{expected}, found: {error}") from None
    with only_one(settings), contextlib.ExitStack() as ending, bound(settings) as listening:
        with database_errors():
            store = Store(settings.database_url)
            credentials = default_credentials(settings, store)
        # Object storage of the operator's own, when the environment names some.
        external = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ACCESS_KEY_ID")
        local = None if external else LocalS3(settings.state, settings.bucket, accounts.all_accounts(store))
        if local:
            ending.callback(local.stop)
            local.start()
        live.endpoint = local.endpoint if local else os.environ.get("AWS_ENDPOINT_URL_S3", "")
        live.store, live.own_s3 = store, local is not None
        live.runner = Runner(settings, store, make_storage(settings, local))
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        credentials |= {
            "url": f"{'https' if certificate else 'http'}://{host}:{settings.port}",
            "endpoint": live.endpoint,
        }
        server = uvicorn.Server(config)
        # From here on no signal raises an exception: amid an import it would leave a lock held, and the runner, which
        # imports its engine, could not be waited for.
        ending.enter_context(server.capture_signals())
        live.runner.start()
        ending.callback(live.runner.stop)
        listening.listen()  # from here on clients wait for their answers, and may know the address
        write_private(settings.state / "credentials.json", json.dumps(credentials))
        print(f"gbdx-platform: {credentials['url']}, state and credentials in {settings.state}", flush=True)
        server.run(sockets=[listening])


def add_account(settings: Settings, name: str) -> str:
    """Makes an account, or a new password for it; a local S3 learns its keys at the service's next start.

    The default account's goes into credentials.json, too, where the command line and the next start look for it.
    """
    with database_errors():
        password = accounts.add_account(Store(settings.database_url), name)
    if name == DEFAULT_ACCOUNT:
        known = read_credentials(settings.state) | {"username": name, "password": password}
        write_private(settings.state / "credentials.json", json.dumps(known))
    return password
