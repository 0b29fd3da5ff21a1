#!/bin/bash
# What the tests of this folder need, outside the checkout: install.sh [DEST]   (default $HIVE_TEST_ENGINES, else ~/.cache/hive-tests)
# Engines by ../shared/engines/quickstart.sh (beside the checkout), client libraries from PyPI and npm. What is already there stays.
# An Ollama of another version may be put at DEST/ollama-VERSION/bin/ollama, before or after: the tests find it by the folder's name.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
dest=${1:-${HIVE_TEST_ENGINES:-$HOME/.cache/hive-tests}}
mkdir -p "$dest"
dest=$(cd "$dest" && pwd)
engines=$here/../../../shared/engines

# The last file of each step of quickstart.sh, so that an interrupted installation is repeated.
has_engines() {
    [ -f "$dest/models/tiny-rerank.gguf" ] && [ -x "$dest/ollama/bin/ollama-lib" ] && [ -x "$dest/llama-debian/llama-server" ] &&
        compgen -G "$dest/xllamacpp/lib/python3*/site-packages/xllamacpp-*.dist-info/RECORD" >/dev/null
}
if has_engines; then
    echo "engines: already in $dest"
elif [ -x "$engines/quickstart.sh" ]; then
    "$engines/quickstart.sh" "$dest"
else
    echo "engines: left out, $engines/quickstart.sh is not there" >&2
fi

# Since 0.30 an Ollama starts a llama-server for each model: one that came without it gets Debian's.
for newer in "$dest"/ollama-[0-9]*; do
    version=${newer##*/ollama-}
    [ -x "$newer/bin/ollama" ] && [ ! -x "$newer/lib/ollama/llama-quantize" ] &&
        [ "$(printf '%s\n' 0.30 "$version" | sort -V | head -n 1)" = 0.30 ] || continue
    "$engines/wire_ollama.sh" "$newer" "$dest/llama-debian" || echo "$newer: left without a llama-server" >&2
done

python_wanted="ollama==0.6.3 openai==3.52.0 langchain-ollama==1.1.0 llama-index-llms-ollama==0.11.0"
# What is asked for is written last.
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
