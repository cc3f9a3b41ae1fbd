"""Accounts, passwords and bearer tokens. Only digests of passwords and tokens are stored."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from typing import Any

import sqlalchemy as sql

from gbdx_platform.database import ACCOUNTS, TOKENS, Row, Store, now

DEFAULT_ACCOUNT = "gbdx"
# A session of the original client ends badly on a 401, so that a token outlives it.
ACCESS_SECONDS = 7 * 24 * 3600
REFRESH_SECONDS = 30 * 24 * 3600


def digest(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def password_digest(password: str, salt: str | None = None) -> str:
    """`salt$scrypt(password)`."""
    salt = salt or secrets.token_hex(16)
    key = hashlib.scrypt(password.encode("utf-8", "replace"), salt=salt.encode(), n=2**14, r=8, p=1)
    return f"{salt}${key.hex()}"


def add_account(store: Store, name: str) -> str:
    """Makes an account, or gives an existing one a new password; returns the password, which is stored nowhere.

    Raises:
        ValueError: a name that can't be a prefix in a bucket.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name):
        raise ValueError(f"account: expected a name of a-z, 0-9, '.', '_' and '-', found {name!r}")
    password = secrets.token_urlsafe(18)
    if store.row(sql.select(ACCOUNTS).where(ACCOUNTS.c.name == name)):
        changed = ACCOUNTS.update().where(ACCOUNTS.c.name == name).values(password=password_digest(password))
        store.write(changed, TOKENS.delete().where(TOKENS.c.account == name))
        return password
    keys = {"access_key": secrets.token_hex(10).upper(), "secret_key": secrets.token_urlsafe(30)}
    store.write(ACCOUNTS.insert().values(name=name, password=password_digest(password), **keys))
    return password


def account_of_password(store: Store, name: str, password: str) -> str | None:
    """The account's name when the password is right."""
    row = store.row(sql.select(ACCOUNTS).where(ACCOUNTS.c.name == name.replace("\0", " ")))
    stored = row["password"] if row else password_digest("")  # the same work when there is no such account
    right = hmac.compare_digest(password_digest(password, stored.split("$")[0]), stored)
    return name if row and right else None


def account_of_token(store: Store, token: str, kind: str = "access") -> str | None:
    """The account that a token stands for, None when it is unknown or has expired."""
    row = store.row(sql.select(TOKENS).where(TOKENS.c.digest == digest(token), TOKENS.c.kind == kind))
    return str(row["account"]) if row and row["expires"] > now() else None


def issue_tokens(store: Store, account: str) -> dict[str, Any]:
    """A new access token and refresh token, as OAuth2 has them; tokens that have expired are forgotten."""
    access, refresh = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    rows = [
        {"digest": digest(access), "account": account, "kind": "access", "expires": now() + ACCESS_SECONDS},
        {"digest": digest(refresh), "account": account, "kind": "refresh", "expires": now() + REFRESH_SECONDS},
    ]
    store.write(*(TOKENS.insert().values(**row) for row in rows), TOKENS.delete().where(TOKENS.c.expires < now()))
    return {
        "access_token": access,
        "token_type": "Bearer",
        "expires_in": ACCESS_SECONDS,
        "refresh_token": refresh,
        "scope": "read write",
    }


def all_accounts(store: Store) -> list[Row]:
    """All accounts, with their S3 keys."""
    return store.rows(sql.select(ACCOUNTS).order_by(ACCOUNTS.c.name))


def lent_keys(account: str) -> dict[str, str] | None:
    """The keys to object storage of the operator's that an account is lent, None when it is lent none.

    GBDX_S3_LEND holds `account=key:secret`, any number of them, blanks between; `key:secret` is the first account's.
    """
    for words in os.environ.get("GBDX_S3_LEND", "").split():
        found = re.fullmatch(r"(?:([^=:]+)=)?([^=:]+):(.+)", words)
        if found and (found[1] or DEFAULT_ACCOUNT) == account:
            return {"access_key": found[2], "secret_key": found[3]}
    return None
