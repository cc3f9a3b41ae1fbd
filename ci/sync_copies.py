#!/usr/bin/env python3
"""Keep the copies of shared files equal to their masters, so that each task folder stands alone.

python3 ci/sync_copies.py            copy what differs
python3 ci/sync_copies.py --check    only list what differs; the exit code is 1 when something does
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
INTERFACE_MASTER = "hello-gbdx/gbdx_task_interface.py"
# Master -> patterns; a copy lies beside each file that a pattern matches. A fork keeps what is not the interface.
COPIES = {
    INTERFACE_MASTER: ["*/*_definition.json"],
    "rf-pool-classifier/input_checks.py": ["rf-pool-deployer/*_definition.json"],
    "train-cnn/chip_arrays.py": ["label-chips/*_definition.json"],
    "train-cnn/compute_device.py": ["label-chips/*_definition.json"],
}


def stale_copies(root: Path) -> list[tuple[Path, Path]]:
    """Return (master, copy) for each copy that is missing, differs or is only a link.

    Raises FileNotFoundError when a master is missing.
    """
    stale = []
    for master_name, patterns in COPIES.items():
        master = root / master_name
        found = {path.parent for pattern in patterns for path in root.glob(pattern) if path.parent.name[0] != "."}
        places = found - {master.parent}
        if not places:
            continue
        if not master.is_file():
            raise FileNotFoundError(f"expected the master copy {master_name}, found none")
        content = master.read_bytes()
        for copy in sorted(place / master.name for place in places):
            if copy.is_symlink() or not copy.is_file() or copy.read_bytes() != content:
                stale.append((master, copy))
    return stale


def main(arguments: list[str] | None = None) -> int:
    """Copy or check; return the exit code: 0, 1 when --check found something, 2 without a master."""
    parser = argparse.ArgumentParser(description="Copy shared files into the task folders.")
    parser.add_argument("--check", action="store_true", help="copy nothing, list what differs and exit with 1")
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="the repository (default: this one)")
    options = parser.parse_args(arguments)
    try:
        stale = stale_copies(options.root)
    except FileNotFoundError as error:
        print(f"sync: {error}", file=sys.stderr)
        return 2
    for master, copy in stale:
        names = f"{copy.relative_to(options.root)} from {master.relative_to(options.root)}"
        if options.check:
            print(f"differs: {names} (make sync copies it)")
        else:
            if copy.is_symlink():
                copy.unlink()
            shutil.copyfile(master, copy)
            print(f"copied {names}")
    if not stale:
        print("all copies equal their masters")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
