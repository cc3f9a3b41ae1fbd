#!/usr/bin/env bash
# Installs the development tools of ci/requirements.txt into .venv, each file checked against its hash.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

say() { echo "tools: $*" >&2; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    { say "the tests and linters need Python 3.10 or newer, found $("$python" --version)"; exit 1; }

rm -rf .venv
say "installing the test tools into .venv (takes about 15 seconds)"
if ! "$python" -m venv .venv >/dev/null 2>&1; then
    # Debian and Ubuntu keep venv in a package of its own.
    if [ "$(id -u)" = 0 ] && type -P apt-get >/dev/null; then
        say "installing python3-venv"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv; } >/dev/null
    fi
    rm -rf .venv
    "$python" -m venv .venv || { say "$python can't make a virtual environment: install its venv package"; exit 1; }
fi
.venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check --require-hashes -r ci/requirements.txt
touch .venv/installed
