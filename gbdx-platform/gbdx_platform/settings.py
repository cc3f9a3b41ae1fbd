"""Where the service keeps things and what it may do: one folder of state, and the environment."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gbdx_platform.hardened_container import size

# Hosts that no other machine can listen in on.
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ServiceError(RuntimeError):
    """The service can't start, or a command can't use its state; the message is a sentence."""


@dataclass
class Settings:
    """Settings of one service. state: its folder; service: the mark on its containers; the rest is what operators set,
    in docs/operate-platform.md."""

    state: Path
    database_url: str
    service: str
    host: str = "127.0.0.1"
    port: int = 8725
    engine: str = "cwltool"
    engine_arguments: tuple[str, ...] = ()
    bucket: str = "gbdx-customer-data"
    file_roots: tuple[Path, ...] = ()
    slots: int = 2
    workflows: int = 4
    keep_days: float = 90


def state_folder(asked: str | None = None) -> Path:
    """The folder of state: asked for, or GBDX_STATE, or the user's own; closed to others."""
    default = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "gbdx-platform"
    folder = Path(asked or os.environ.get("GBDX_STATE") or default).absolute()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def close(folder: Path) -> None:
    """Closes a folder of state to others, which somebody may have made with another mode.

    Raises:
        ServiceError: everybody may write there, as in /tmp, so that it is nobody's own to close.
    """
    mode = folder.stat().st_mode
    if mode & 0o002:
        raise ServiceError(f"state: expected a folder of your own, found {folder}, which everybody may write to")
    if mode & 0o077:
        folder.chmod(0o700)


def number(variable: str, default: float) -> float:
    """A number above zero from the environment; six digits at most, as Python can't wait for some millions of seconds.

    Raises:
        ServiceError: it is none.
    """
    text = os.environ.get(variable) or str(default)
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", text) or float(text) == 0:
        raise ServiceError(f"{variable}: expected a number above 0, of six digits at most, found {text!r}")
    return float(text)


def whole_number(variable: str, default: int) -> int:
    """The same, rounded up."""
    return math.ceil(number(variable, default))


def byte_size(variable: str, default: int) -> int:
    """Bytes from the environment, written as `8g` or as a plain number.

    Raises:
        ServiceError: it is no size.
    """
    try:
        return size(text) if (text := os.environ.get(variable)) else default
    except argparse.ArgumentTypeError as error:
        raise ServiceError(f"{variable}: {error}") from None


def load(state: str | None = None, **options: Any) -> Settings:
    """Settings from the environment; `options` are those of the command line, None where not given.

    Raises:
        ServiceError: a variable, or a folder of state, that can't be used.
    """
    folder = state_folder(state)
    close(folder)
    mark = folder / "service-id"
    if not mark.exists():
        write_private(mark, secrets.token_hex(8))
    cores = os.cpu_count() or 1
    roots = [Path(root).resolve() for root in os.environ.get("GBDX_FILE_ROOTS", "").split(os.pathsep) if root]
    return Settings(
        state=folder,
        database_url=os.environ.get("DATABASE_URL") or f"sqlite:///{quote(str(folder))}/platform.sqlite",
        service=mark.read_text("utf-8").strip(),
        bucket=os.environ.get("GBDX_BUCKET") or Settings.bucket,
        file_roots=tuple(roots),
        slots=whole_number("GBDX_SLOTS", cores),
        workflows=whole_number("GBDX_WORKFLOWS", 2 * cores),
        keep_days=number("GBDX_KEEP_DAYS", Settings.keep_days),
        **{key: value for key, value in options.items() if value is not None},
    )


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, in one step."""
    temporary = path.with_name(path.name + ".new")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def read_credentials(state: Path) -> dict[str, Any]:
    """What `serve` left for the command line of the same user: url, username, password, token; {} when nothing.

    Raises:
        ServiceError: the file is damaged.
    """
    path = state / "credentials.json"
    try:
        found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ServiceError(
            f"{path}: expected what `serve` wrote, found another text; without it `serve` writes it anew"
        )
    return found
