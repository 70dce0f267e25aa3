#!/usr/bin/env bash
# Runs a command against a server of its own, with a fleet that has lived a little: what the demo leaves behind.
#
#   scripts/with-server.sh COMMAND…      it is given HALLMARK_URL, HALLMARK_TOKEN and HALLMARK_DEVICES
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
server=
finish() {
  if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
  rm -rf "$dir"
}
trap finish EXIT
export HALLMARK_PASSPHRASE=demo GOFLAGS="${GOFLAGS:--buildvcs=false}"
for p in hallmark hallmark-agent hallmark-station; do go build -o "$dir/$p" "./cmd/$p"; done
"$dir/hallmark" demo --once --devices 5 --dir "$dir/demo" >"$dir/demo.out" 2>&1 || { cat "$dir/demo.out" >&2; exit 1; }
"$dir/hallmark" serve --dir "$dir/demo/server" >"$dir/serve.out" 2>"$dir/serve.err" &
server=$!
url=
for _ in $(seq 100); do
  url=$(sed -n 's/^console and API *\(http[^ ]*\).*/\1/p' "$dir/serve.out")
  [ -n "$url" ] && break
  sleep 0.1
done
[ -n "$url" ] || { cat "$dir/serve.err" >&2; exit 1; }
"$dir/hallmark" token create token:interop --machine --role viewer,operator,auditor,factory,release-manager,admin \
  --url "$url" --token-file "$dir/demo/server/admin.token" --out "$dir/token" >/dev/null
unset HALLMARK_PASSPHRASE
HALLMARK_URL=$url HALLMARK_TOKEN=$(cat "$dir/token") HALLMARK_DEVICES=5 "$@"
