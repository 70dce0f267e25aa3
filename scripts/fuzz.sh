#!/usr/bin/env bash
# Runs every fuzz target for FUZZTIME (10s).
set -euo pipefail
cd "$(dirname "$0")/.."
count=0
while IFS=: read -r file target; do
  go test -run '^$' -fuzz "^${target}\$" -fuzztime "${FUZZTIME:-10s}" "./$(dirname "$file")" </dev/null
  count=$((count + 1))
done < <(git ls-files -z '*_test.go' | xargs -0 grep -Ho '^func Fuzz[A-Za-z0-9_]*' | sed 's/func //')
echo "$count fuzz targets ran"
[ "$count" -gt 0 ]
