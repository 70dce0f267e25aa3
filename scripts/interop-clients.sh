#!/usr/bin/env bash
# The generated clients, and every example of docs/guide/api.md, against a real server. 75 when one could not be made here.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${HALLMARK_URL:-}" ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then # what is there already stays
    want=()
    command -v npm >/dev/null || want+=(nodejs npm)
    python3 -c 'import ensurepip, venv' 2>/dev/null || want+=(python3 python3-venv)
    [ "${#want[@]}" = 0 ] || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${want[@]}"; } </dev/null >/dev/null || true
  fi
  scripts/clients.sh python typescript
  exec scripts/with-server.sh "$0"
fi

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
# example LANGUAGE prints the example in that language.
example() { sed -n "/^\`\`\`$1\$/,/^\`\`\`\$/p" docs/guide/api.md | grep -v '^```'; }

echo "== Python"
export PYTHONPATH=$PWD/dist/clients/python
.cache/clients/python/bin/python scripts/clients/interop.py
example python >"$dir/example.py"
.cache/clients/python/bin/python "$dir/example.py" | tee "$dir/python.out"

echo "== TypeScript"
ts=.cache/clients/typescript
rm -rf "$ts/src" && mkdir "$ts/src"
cp dist/clients/typescript/*.ts scripts/clients/interop.ts "$ts/src/"
example ts >"$ts/src/example.ts"
cp scripts/clients/tsconfig.json "$ts/"
(cd "$ts" && node_modules/.bin/tsc -p . && node out/interop.js && node out/example.js) | tee "$dir/ts.out"

echo "== Go"
example go >"$dir/main.go"
go run "$dir/main.go" | tee "$dir/go.out"

echo "== curl"
example sh >"$dir/example.sh"
(cd "$dir" && bash -euo pipefail example.sh) | tee "$dir/sh.out"

for of in python ts go sh; do # every example finds out the same
  for line in "$HALLMARK_DEVICES devices" "refused: product.exists" "refused: if-match.changed" "3 events"; do
    grep -q "^$line" "$dir/$of.out" || { echo "the example for $of does not say: $line" >&2; exit 1; }
  done
done
echo "CLIENTS OK"
