"""Reports a failure, then ends with exit code 0."""

from pathlib import Path

work = Path("/mnt/work")
(work / "status.json").write_text('{"status": "failed", "reason": "no clouds found"}')
