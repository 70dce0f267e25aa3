#!/usr/bin/env bash
# Installs what the tests need, runs them all, and says at the end what did not run and why.
# Arguments are go test's: scripts/test.sh -run Gate ./agent/gate
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup-test.sh
if [ "$#" -gt 0 ]; then
  exec go run ./internal/testrun "$@"
fi
exec go run ./internal/testrun -race-list scripts/race.txt
