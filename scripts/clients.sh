#!/usr/bin/env bash
# Makes clients of the API from its description: Go into client/, which is committed; Python and TypeScript into dist/clients/. The
# generators are pinned: tools/go.mod, scripts/clients/requirements.txt with hashes, scripts/clients/package-lock.json.
#
#   scripts/clients.sh [go|python|typescript …]      all three where none is named; 75 when one lacks what it needs
set -euo pipefail
cd "$(dirname "$0")/.."
export GOFLAGS="${GOFLAGS:--buildvcs=false}"
cache=$PWD/.cache/clients
mkdir -p "$cache"

# current NAME FILES… says whether what was installed under that name was installed from these files.
current() { [ "$(cat "$cache/$1.of" 2>/dev/null)" = "$(cat "${@:2}" | sha256sum)" ]; }
installed() { cat "${@:2}" | sha256sum >"$cache/$1.of"; }

lacks() {
  echo "clients: the $1 client needs $2" >&2
  exit 75 # EX_TEMPFAIL
}

go_client() {
  go run ./internal/reference openapi-go >"$cache/openapi-go.json"
  "$(scripts/tool.sh oapi-codegen)" -config client/oapi-codegen.yaml -o client/api.gen.go "$cache/openapi-go.json"
}

python_client() {
  local want=scripts/clients/requirements.txt
  if ! current python "$want"; then
    rm -rf "$cache/python"
    python3 -m venv "$cache/python" && "$cache/python/bin/pip" -q install --require-hashes -r "$want" || lacks Python "python3-venv and a package index"
    installed python "$want"
  fi
  rm -rf dist/clients/python
  "$cache/python/bin/openapi-python-client" generate --path "$cache/openapi.json" --config scripts/clients/python.yaml --meta poetry \
    --output-path dist/clients/python --overwrite --fail-on-warning
}

typescript_client() {
  local files=(scripts/clients/package.json scripts/clients/package-lock.json)
  if ! current typescript "${files[@]}"; then
    mkdir -p "$cache/typescript"
    cp "${files[@]}" "$cache/typescript/"
    (cd "$cache/typescript" && npm ci --silent --ignore-scripts --no-audit --no-fund) || lacks TypeScript "node, npm and its registry"
    installed typescript "${files[@]}"
  fi
  rm -rf dist/clients/typescript
  mkdir -p dist/clients/typescript
  "$cache/typescript/node_modules/.bin/openapi-typescript" "$cache/openapi.json" --output dist/clients/typescript/schema.ts
  cp scripts/clients/index.ts dist/clients/typescript/index.ts
}

what=("$@")
[ "$#" -gt 0 ] || what=(go python typescript)
mkdir -p dist/clients
go run ./internal/reference openapi >"$cache/openapi.json"
for client in "${what[@]}"; do
  case "$client" in
    go | python | typescript) "${client}_client" ;;
    *) echo "clients: no client in $client; there are go, python and typescript" >&2; exit 2 ;;
  esac
done
