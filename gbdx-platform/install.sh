#!/bin/bash
# Makes gbdx-platform/.venv with the locked requirements, and the command gbdx-platform in it; --toil adds Toil.
# Prints the path of the command. Needs Python 3.11 or later (PYTHON=..., default: python3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

python=${PYTHON:-python3}
lock=requirements.txt
[[ ${1:-} == --toil ]] && lock=requirements-toil.txt

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "gbdx-platform: expected Python 3.11 or later, found $("$python" --version 2>&1); set PYTHON=python3.11" >&2
    exit 1
}
stamp=.venv/installed-$(sha256sum "$lock" | cut -c1-16)
if [[ ! -e $stamp ]]; then
    # One without pip was left by an attempt that failed.
    [[ -x .venv/bin/pip ]] || ../ci/make_environment.sh .venv
    .venv/bin/python -m pip install --quiet --quiet --require-hashes -r "$lock" >&2
    # The package is used where it lies; nothing of it is copied.
    site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    pwd >"$site/gbdx_platform.pth"
    printf '#!/bin/sh\nexec "%s/.venv/bin/python" -m gbdx_platform.command_line "$@"\n' "$PWD" >.venv/bin/gbdx-platform
    chmod +x .venv/bin/gbdx-platform
    touch "$stamp"
fi
echo "$PWD/.venv/bin/gbdx-platform"
