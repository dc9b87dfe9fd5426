#!/usr/bin/env bash
# Makes .venv-lava: CPython 3.10 with lava-nc and this package, without torch and numba.
# Exit code 4 if no Python 3.10 is found. LAVA_PYTHON names one.
set -euo pipefail
cd "$(dirname "$0")/.."

is_310() {
    [ -n "$1" ] && "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' >/dev/null 2>&1
}

found=""
for python in "${LAVA_PYTHON:-}" python3.10 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10.*/bin/python; do
    if is_310 "$python"; then
        found="$python"
        break
    fi
done
if [ -z "$found" ]; then
    echo "no Python 3.10 found; name one: LAVA_PYTHON=/path/to/python3.10 $0" >&2
    exit 4
fi
if [ ! -f .venv-lava/.ready ] || [ pyproject.toml -nt .venv-lava/.ready ]; then
    "$found" -m venv .venv-lava
    .venv-lava/bin/python -m pip --disable-pip-version-check -q install -e '.[lava]' 'pytest>=8,<10' 'hypothesis>=6.100,<7'
    touch .venv-lava/.ready
fi
echo "$PWD/.venv-lava/bin/python"
