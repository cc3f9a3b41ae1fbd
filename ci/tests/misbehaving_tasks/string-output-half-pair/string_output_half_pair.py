"""Writes a string output with half a surrogate pair, which JSON can spell and UTF-8 can't."""

from pathlib import Path

work = Path("/mnt/work")
(work / "output" / "ports.json").write_text(r'{"answer": "\ud83d"}')
(work / "status.json").write_text('{"status": "success"}')
