"""Waiting with an end, for the tests, and for scripts that run with a client's packages alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Until something is so, for as long as the slowest machine needs.

    Raises:
        TimeoutError: it did not become so.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"did not become so within {seconds:g} s")
        time.sleep(0.05)
