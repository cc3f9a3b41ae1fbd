"""Succeeds without the output it declares."""

from pathlib import Path

work = Path("/mnt/work")
(work / "status.json").write_text('{"status": "success"}')
