"""Writes an output that it does not declare."""

from pathlib import Path

work = Path("/mnt/work")
(work / "output" / "extra").mkdir()
(work / "status.json").write_text('{"status": "success"}')
