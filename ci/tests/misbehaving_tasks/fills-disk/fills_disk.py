"""Writes until it is stopped."""

import time
from pathlib import Path

work = Path("/mnt/work")
with (work / "output" / "large").open("wb") as file:
    while True:
        file.write(bytes(2**20))
        file.flush()
        time.sleep(0.02)
