"""Removes /mnt/work/output."""

from pathlib import Path

work = Path("/mnt/work")
(work / "output").rmdir()
(work / "status.json").write_text('{"status": "success"}')
