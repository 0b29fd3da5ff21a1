#!/bin/bash
# What the tests of this folder need, outside the checkout: install.sh [DEST]   (default $HIVE_TEST_ENGINES, else ~/.cache/hive-tests)
# Engines by ../shared/engines/quickstart.sh (beside the checkout), client libraries from PyPI and npm. What is already there stays.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
dest=${1:-${HIVE_TEST_ENGINES:-$HOME/.cache/hive-tests}}
mkdir -p "$dest"
dest=$(cd "$dest" && pwd)

# What is asked for is written last, so that an interrupted installation is repeated.
quickstart=$here/../../../shared/engines/quickstart.sh
if [ -x "$dest/ollama-0.33.0-rc2/lib/ollama/llama-quantize" ]; then
    echo "engines: already in $dest"
elif [ -x "$quickstart" ]; then
    "$quickstart" "$dest"
else
    echo "engines: left out, $quickstart is not there" >&2
fi

python_wanted="ollama==0.6.3 openai==3.52.0 langchain-ollama==1.1.0 llama-index-llms-ollama==0.11.0"
if [ "$(cat "$dest/clients/python.installed" 2>/dev/null)" = "$python_wanted" ]; then
    echo "Python clients: already in $dest/clients"
else
    python3 -m venv "$dest/clients"
    # shellcheck disable=SC2086
    "$dest/clients/bin/pip" install -q --disable-pip-version-check $python_wanted
    echo "$python_wanted" > "$dest/clients/python.installed"
fi

npm_wanted="ollama@0.6.4"
if [ "$(cat "$dest/clients/npm.installed" 2>/dev/null)" = "$npm_wanted" ]; then
    echo "JavaScript clients: already in $dest/clients"
elif command -v npm >/dev/null; then
    npm install --silent --no-fund --no-audit --prefix "$dest/clients" "$npm_wanted"
    echo "$npm_wanted" > "$dest/clients/npm.installed"
else
    echo "JavaScript clients: left out, npm is not on this machine" >&2
fi
echo "real engines and clients: HIVE_TEST_ENGINES=$dest"
