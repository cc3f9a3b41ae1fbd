"""Puts a link to a folder of the host in place of /mnt/work/output itself."""

from pathlib import Path

work = Path("/mnt/work")
(work / "output").rmdir()
(work / "output").symlink_to("../../victim")
(work / "status.json").write_text('{"status": "success"}')
