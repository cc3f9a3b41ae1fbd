"""Reports a word that is no status."""

from pathlib import Path

work = Path("/mnt/work")
(work / "status.json").write_text('{"status": "banana"}')
