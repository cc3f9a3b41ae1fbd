#!/usr/bin/env bash
# Every test, in two environments side by side: the repository's, and the platform's own with all its libraries.
# What the platform's tests print comes when the others have ended, so that the two don't mix.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
# GPU tasks are tested on the processor, in the small variant of their images.
export DEVICE=cpu
status=0

# Built before, so that it is seen; where it fails, the tests that need images fail with the reason.
"${PYTHON:-python3}" ci/build_images.py || true
BASE=theano "${PYTHON:-python3}" ci/build_images.py train-cnn label-chips || true
# Before the tests too, as two installations at once would wait for each other in vain.
gbdx-platform/test.sh --install || exit
printed=$(mktemp)
gbdx-platform/test.sh >"$printed" 2>&1 &
platform=$!
trap 'kill $platform 2>/dev/null; rm -f "$printed"' EXIT
.venv/bin/python -m pytest || status=$?
echo "test: the platform's tests"
tail -n +1 -f --pid=$platform "$printed"
wait $platform || status=$?
exit "$status"
