"""Reports success in capitals, as old tasks did."""

from pathlib import Path

work = Path("/mnt/work")
(work / "status.json").write_text('{"status": "SUCCESS"}')
