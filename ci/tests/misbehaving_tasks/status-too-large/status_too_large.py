"""Writes 5 MB of reasons."""

from pathlib import Path

work = Path("/mnt/work")
(work / "status.json").write_text('{"status": "success", "reason": "' + "x" * 5_000_000 + '"}')
