#!/usr/bin/env bash
# Installs the development tools of ci/requirements.txt into .venv, each file checked against its hash.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

say() { echo "tools: $*" >&2; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    { say "the tests and linters need Python 3.10 or newer, found $("$python" --version)"; exit 1; }

say "installing the test tools into .venv (takes about 15 seconds)"
ci/make_environment.sh .venv
.venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check --require-hashes -r ci/requirements.txt
touch .venv/installed
