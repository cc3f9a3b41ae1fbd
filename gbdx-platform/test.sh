#!/bin/bash
# Runs the platform's tests in its own environment, with the pytest of ci/requirements.txt: test.sh [pytest's arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

gbdx-platform/install.sh >/dev/null
python=gbdx-platform/.venv/bin/python
"$python" -c 'import pytest' 2>/dev/null ||
    "$python" -m pip install --quiet --quiet --require-hashes -r gbdx-platform/requirements.txt -r ci/requirements.txt
# One test keeps the service's state in a real PostgreSQL.
if ! type -P initdb >/dev/null && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 &&
    [[ $(id -u) == 0 ]] && type -P apt-get >/dev/null; then
    echo "gbdx-platform: installing PostgreSQL's server programs for the tests" >&2
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null
fi
ENGINE=$(ci/engine.sh)
export ENGINE
[[ $# -gt 0 ]] || set -- gbdx-platform/tests
exec "$python" -m pytest "$@"
