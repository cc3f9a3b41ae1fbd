"""Changes a file of its image."""

from pathlib import Path

work = Path("/mnt/work")
Path("/writes_into_image.py").write_text("pass")
(work / "status.json").write_text('{"status": "success"}')
