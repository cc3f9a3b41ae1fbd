"""Its output holds links: one stays inside, three leave the folder."""

from pathlib import Path

work = Path("/mnt/work")
output = work / "output" / "data_out"
(output / "deep" / "deeper").mkdir(parents=True)
(output / "deep" / "deeper" / "top").symlink_to("../..")
(output / "absolute").symlink_to("/etc/passwd")
(output / "upwards").symlink_to("../../../victim")
# Read as text it stays inside; the way through `top` leads out.
(output / "deep" / "deeper" / "devious").symlink_to("top/../../../victim")
(work / "status.json").write_text('{"status": "success"}')
