#!/bin/bash
# Runs the platform's tests in its own environment, with the pytest of ci/requirements.txt: test.sh [pytest's arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

gbdx-platform/install.sh >/dev/null
python=gbdx-platform/.venv/bin/python
"$python" -c 'import pytest' 2>/dev/null ||
    "$python" -m pip install --quiet --require-hashes -r gbdx-platform/requirements.txt -r ci/requirements.txt
ENGINE=$(ci/engine.sh)
export ENGINE
[[ $# -gt 0 ]] || set -- gbdx-platform/tests
exec "$python" -m pytest "$@"
