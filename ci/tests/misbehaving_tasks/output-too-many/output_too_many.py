"""Leaves a hundred undeclared outputs."""

from pathlib import Path

work = Path("/mnt/work")
for number in range(100):
    (work / "output" / f"extra{number}").mkdir()
(work / "status.json").write_text('{"status": "success"}')
