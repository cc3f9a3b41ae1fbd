#!/usr/bin/env bash
# Makes a Python environment, and as root on Debian or Ubuntu what that takes: make_environment.sh FOLDER
# What is in FOLDER is removed first: an environment that was made by half is no help.
set -euo pipefail
folder=${1:?expected the folder of the environment}
python=${PYTHON:-python3}

rm -rf "$folder"
"$python" -m venv "$folder" >/dev/null 2>&1 && exit
# Debian and Ubuntu keep venv in a package of its own.
if [ "$(id -u)" = 0 ] && type -P apt-get >/dev/null; then
    echo "environment: installing python3-venv" >&2
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv; } >/dev/null
fi
rm -rf "$folder"
"$python" -m venv "$folder" >&2 || {
    echo "environment: $python can't make a virtual environment: install its venv package" >&2
    exit 1
}
