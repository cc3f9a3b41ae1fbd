"""Writes a status word of half a megabyte."""

from pathlib import Path

work = Path("/mnt/work")
(work / "status.json").write_text('{"status": "' + "x" * 500_000 + '"}')
