#!/usr/bin/env bash
# schemathesis, a foreign client that makes requests up from /openapi.json, against a real server. EXAMPLES (25) requests an operation.
set -euo pipefail
cd "$(dirname "$0")/.."
version=4.32.5
tools=$PWD/.cache/schemathesis
if ! [ -x "$tools/bin/st" ] || ! "$tools/bin/st" --version | grep -q "$version"; then
  if ! { python3 -m venv "$tools" && "$tools/bin/pip" -q install "schemathesis==$version"; }; then
    echo "schemathesis: NOT RUN: it needs python3-venv and a package index" >&2
    exit 75 # EX_TEMPFAIL: not run is not a failure, and not a success
  fi
fi

dir=$(mktemp -d)
server=
finish() {
  if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
  rm -rf "$dir"
}
trap finish EXIT
export HALLMARK_PASSPHRASE=pass GOFLAGS="${GOFLAGS:--buildvcs=false}"
go build -o "$dir/hallmark" ./cmd/hallmark
"$dir/hallmark" init --dir "$dir/d" --kdf-iterations 1000 --oem acme --product pump --hardware A --api 127.0.0.1:0 --devices 127.0.0.1:0 --allow-virtual >"$dir/init.out"
"$dir/hallmark" serve --dir "$dir/d" >"$dir/serve.out" 2>"$dir/serve.err" &
server=$!
for _ in $(seq 100); do
  url=$(sed -n 's/^console and API *\(http[^ ]*\).*/\1/p' "$dir/serve.out")
  [ -n "$url" ] && break
  sleep 0.1
done
[ -n "$url" ] || { cat "$dir/serve.err" >&2; exit 1; }
roles=viewer,operator,release-manager,factory,security,auditor,tester,admin
"$dir/hallmark" token create person:foreign --role "$roles" --url "$url" --token-file "$dir/d/admin.token" --out "$dir/token" >/dev/null

# Streams do not end: they have tests of their own.
status=0
hooks=$PWD/internal/httpapi/testdata/hooks.py
cd "$dir" # it leaves files behind
SCHEMATHESIS_HOOKS=$hooks "$tools/bin/st" run "$url/openapi.json" --header "Authorization: Bearer $(cat "$dir/token")" \
  --checks not_a_server_error,response_schema_conformance,status_code_conformance,content_type_conformance \
  --exclude-path /api/v1/events --phases examples,coverage,fuzzing --max-examples "${EXAMPLES:-25}" --seed 1 --workers 2 --no-color \
  >"$dir/report" 2>&1 || status=$?
if [ "$status" != 0 ]; then
  cat "$dir/report"
  grep -h "level=ERROR" "$dir/serve.err" | sort | uniq -c | sort -rn | head -20 >&2 || true
  exit "$status"
fi
tail -n 25 "$dir/report"
