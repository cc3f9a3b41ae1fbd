#!/usr/bin/env bash
# Every linter, one after the other; all findings are shown before it fails.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
PATH=$PWD/.venv/bin:$PATH
failed=()

check() {
    local name=$1
    shift
    "$@" || failed+=("$name")
}

mapfile -t dockerfiles < <(git ls-files --cached --others --exclude-standard -- '*Dockerfile')
mapfile -t scripts < <(git ls-files --cached --others --exclude-standard -- '*.sh' '.ci/run')

check "definitions (ci/lint_tasks.py)" python ci/lint_tasks.py
check "identical copies (make sync)" python ci/sync_copies.py --check
check "ruff check" ruff check --quiet
check "ruff format (ruff format)" ruff format --check --quiet
check mypy mypy --no-error-summary
check shellcheck shellcheck "${scripts[@]}"
# DL3008 wants versions of Debian packages pinned: the archive keeps only the newest, so a pin breaks the next build.
# DL3002 wants no stage to end as root: stages that only build may; that the image itself doesn't is a contract test.
check hadolint hadolint --no-color --ignore DL3008 --ignore DL3002 "${dockerfiles[@]}"
check "check-jsonschema (workflows)" check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
# Offline: what it could ask GitHub (is a pinned action known to be bad?) is asked by the dependency updates.
check "check-jsonschema (dependabot)" check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
check "zizmor (workflows)" zizmor --offline --quiet --no-progress .github

if [ ${#failed[@]} -gt 0 ]; then
    printf 'lint: %s failed\n' "${failed[@]}" >&2
    exit 1
fi
echo "lint: no errors"
