"""Prints 100 MB."""

from pathlib import Path

work = Path("/mnt/work")
for _ in range(100):
    print("x" * 999_999)
(work / "status.json").write_text('{"status": "success"}')
