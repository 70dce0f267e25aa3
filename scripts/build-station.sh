#!/usr/bin/env bash
# Builds the station's program: with cgo, for PKCS#11, where there is a C compiler; without it otherwise, and says so.
set -euo pipefail
cd "$(dirname "$0")/.."
cgo=1
if ! command -v "$(go env CC | cut -d' ' -f1)" >/dev/null 2>&1; then
  echo "no C compiler: hallmark-station is built without PKCS#11 and keeps its keys in files" >&2
  cgo=0
fi
CGO_ENABLED=$cgo exec go build -trimpath -ldflags '-s -w' -o "${1:?where to?}" ./cmd/hallmark-station
