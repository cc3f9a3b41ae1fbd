#!/usr/bin/env bash
# Builds the site of the documents in docs/_site, in an environment of its own; a link that leads nowhere is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "docs: the site needs Python 3.11 or newer, found $("$python" --version)" >&2; exit 1; }
stamp=docs/.venv/installed-$(sha256sum docs/requirements.txt | cut -c1-16)
if [ ! -e "$stamp" ]; then
    echo "docs: installing Sphinx into docs/.venv" >&2
    ci/make_environment.sh docs/.venv
    docs/.venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check --require-hashes -r docs/requirements.txt
    touch "$stamp"
fi
gbdx-platform/install.sh >/dev/null
"$python" ci/document_tables.py
"$python" ci/draw_pictures.py
# -n -W: whatever Sphinx would warn of, such as an anchor that is not there, fails. -E: nothing of an earlier build.
docs/.venv/bin/python -m sphinx -n -W --keep-going -E -q -j auto -b html -c docs . docs/_site
echo "docs: the site is $PWD/docs/_site/index.html"
