#!/usr/bin/env bash
# Foreign clients and tools against ours: every test whose name says which.
set -euo pipefail
cd "$(dirname "$0")/.."
exec scripts/test.sh -count=1 -run 'Interop|OpenSSL|Curl|SoftHSM|SWTPM|SWUpdate|Mender|Mosquitto|Chromium' ./...
