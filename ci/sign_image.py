#!/usr/bin/env python3
"""Signs a pushed image, and its bill of materials with it, by its digest: ci/sign_image.py TASK

cosign signs keyless: in the publishing workflow the certificate says which workflow of which repository it was; on a
laptop cosign asks the person who signs to log in. `make push` and `make sbom` go before; DEVICE and BASE as there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

from image_graph import GraphError, lineage, read_graph
from push_images import PUSHED, variant
from write_sbom import SBOM


class SignError(RuntimeError):
    """An image can't be signed; the message says why."""


def main(task: str) -> int:
    """Signs one task's image, and attests what is in it."""
    images = read_graph()
    name = task + variant(lineage(task, images)[-1], images)
    record, bill = PUSHED / f"{name}.json", SBOM / f"{name}.spdx.json"
    for path, verb in ((record, "push"), (bill, "sbom")):
        if not path.is_file():
            raise SignError(f"{name}: expected what `make {verb} TASK={task}` writes, found none")
    cosign = shutil.which(os.environ.get("COSIGN") or "cosign")
    if not cosign:
        raise SignError("expected the command cosign (https://docs.sigstore.dev/cosign/), found none")
    image = json.loads(record.read_text(encoding="utf-8"))["image"]
    subprocess.run([cosign, "sign", "--yes", image], check=True)
    subprocess.run([cosign, "attest", "--yes", "--type", "spdxjson", "--predicate", str(bill), image], check=True)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1]:
        sys.exit("sign: expected the name of a task, for example: make sign TASK=hello-gbdx")
    try:
        sys.exit(main(sys.argv[1]))
    except (SignError, GraphError, subprocess.CalledProcessError) as error:
        sys.exit(f"sign: {error}")
