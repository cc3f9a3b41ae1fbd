#!/bin/bash
# Runs the platform's tests in its own environment, with the pytest of ci/requirements.txt: test.sh [pytest's arguments]
# Without a path among the arguments it runs all of them.
# As root it installs what is missing of PostgreSQL's server programs, Slurm, and the browser that looks at the page;
# with --install it does no more than that.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

gbdx-platform/install.sh --toil >/dev/null
python=gbdx-platform/.venv/bin/python
locks=(gbdx-platform/requirements-toil.txt ci/requirements.txt gbdx-platform/requirements-test.txt)
stamp=gbdx-platform/.venv/tests-$(cat "${locks[@]}" | sha256sum | cut -c1-16)
if [[ ! -e $stamp ]]; then
    "$python" -m pip install --quiet --quiet --require-hashes "${locks[@]/#/--requirement=}"
    touch "$stamp"
fi
missing=()
type -P initdb >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || missing+=(postgresql)
type -P slurmctld >/dev/null && type -P munged >/dev/null || missing+=(slurm-wlm munge)
type -P chromedriver >/dev/null || missing+=(chromium chromium-driver)
if [[ ${#missing[@]} -gt 0 && $(id -u) == 0 ]] && type -P apt-get >/dev/null; then
    echo "gbdx-platform: installing ${missing[*]} for the tests" >&2
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
[[ ${1:-} == --install ]] && exit
ENGINE=$(ci/engine.sh)
export ENGINE
if [[ $# == 0 ]]; then
    # Here, because only this environment has the libraries whose types it looks at.
    "$python" -m mypy --exclude original_client gbdx-platform/gbdx_platform
fi
paths=()
for argument in "$@"; do
    [[ $argument != -* && -e ${argument%%::*} ]] && paths+=("$argument")
done
[[ ${#paths[@]} == 0 ]] && set -- "$@" gbdx-platform/tests
exec "$python" -m pytest "$@"
