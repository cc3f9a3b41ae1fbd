"""Allocates more memory than it may."""

from pathlib import Path

work = Path("/mnt/work")
bytearray(2**28)
(work / "status.json").write_text('{"status": "success"}')
