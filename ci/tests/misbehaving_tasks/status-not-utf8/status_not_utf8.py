"""Writes status.json in another encoding."""

from pathlib import Path

work = Path("/mnt/work")
(work / "status.json").write_text('{"status": "success", "reason": "terminé"}', encoding="latin-1")
