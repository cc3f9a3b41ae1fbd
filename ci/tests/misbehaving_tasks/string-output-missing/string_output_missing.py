"""Writes other string outputs than it declares."""

from pathlib import Path

work = Path("/mnt/work")
(work / "output" / "ports.json").write_text('{"ansver": "42"}')
(work / "status.json").write_text('{"status": "success"}')
