"""Its output is a link to a folder of the host."""

from pathlib import Path

work = Path("/mnt/work")
(work / "output" / "data_out").symlink_to("/etc")
(work / "status.json").write_text('{"status": "success"}')
