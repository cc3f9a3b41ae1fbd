#!/usr/bin/env bash
# Every test, in two environments: the repository's, and the platform's own with all its libraries.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
# GPU tasks are tested on the processor, in the small variant of their images.
export DEVICE=cpu
status=0

# Built before, so that it is seen; where it fails, the tests that need images fail with the reason.
"${PYTHON:-python3}" ci/build_images.py || true
.venv/bin/python -m pytest || status=$?
gbdx-platform/test.sh || status=$?
exit "$status"
