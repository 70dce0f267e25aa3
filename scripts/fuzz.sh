#!/usr/bin/env bash
# Runs every fuzz target for FUZZTIME (10s). What is new to a target is made smaller by ten tries and no more: by default Go tries for a minute, in which it looks for nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
count=0
while IFS=: read -r file target; do
  go test -run '^$' -fuzz "^${target}\$" -fuzztime "${FUZZTIME:-10s}" -fuzzminimizetime=10x "./$(dirname "$file")" </dev/null
  count=$((count + 1))
done < <(git ls-files -z '*_test.go' | xargs -0 grep -Ho '^func Fuzz[A-Za-z0-9_]*' | sed 's/func //')
echo "$count fuzz targets ran"
[ "$count" -gt 0 ]
