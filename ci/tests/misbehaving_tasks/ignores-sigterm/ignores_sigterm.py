"""Writes down that it was asked to end, and goes on."""

import signal
import time
from pathlib import Path

work = Path("/mnt/work")


def note(signal_number, frame):
    (work / "output" / "asked_to_end").touch()


signal.signal(signal.SIGTERM, note)
while True:
    time.sleep(1)
