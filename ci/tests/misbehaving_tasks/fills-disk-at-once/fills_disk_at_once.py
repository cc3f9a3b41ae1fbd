"""Is over the limit of the disk, and gone before anybody looks."""

from pathlib import Path

work = Path("/mnt/work")
(work / "output" / "data_out").mkdir()
(work / "output" / "data_out" / "large").write_bytes(bytes(40 * 2**20))
(work / "status.json").write_text('{"status": "success"}')
