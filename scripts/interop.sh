#!/usr/bin/env bash
# Foreign clients and tools against ours: the tests named Interop.
set -euo pipefail
cd "$(dirname "$0")/.."
exec env HALLMARK_INTEROP=1 scripts/test.sh -run Interop
