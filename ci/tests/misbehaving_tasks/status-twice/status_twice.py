"""Writes status.json twice; the last one counts."""

from pathlib import Path

work = Path("/mnt/work")
(work / "status.json").write_text('{"status": "success"}')
(work / "status.json").write_text('{"status": "failed", "reason": "second thoughts"}')
