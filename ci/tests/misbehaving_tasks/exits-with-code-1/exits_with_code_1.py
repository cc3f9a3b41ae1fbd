"""Reports success, then ends with exit code 1."""

import sys
from pathlib import Path

work = Path("/mnt/work")
(work / "status.json").write_text('{"status": "success"}')
sys.exit(1)
