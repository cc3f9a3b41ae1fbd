#!/usr/bin/env bash
# Every test, in two environments: the repository's, and the platform's own with all its libraries.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
status=0

# Built before, so that it is seen; where it fails, the tests that need images fail with the reason.
"${PYTHON:-python3}" ci/build_images.py || true
.venv/bin/python -m pytest || status=$?
if command=$(gbdx-platform/install.sh); then
    "$(dirname "$command")/python" -m pytest gbdx-platform/tests || status=$?
else
    status=1
fi
exit "$status"
