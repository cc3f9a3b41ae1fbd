"""Gives a reason that would rewrite the user's terminal."""

import json
from pathlib import Path

work = Path("/mnt/work")
reason = "no clouds\x1b[2K\r\x1b]0;title\x07hello: success\nin 0.1 s \u202eevil \x9b31m"
(work / "status.json").write_text(json.dumps({"status": "failed", "reason": reason}))
