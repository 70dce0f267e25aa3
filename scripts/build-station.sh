#!/usr/bin/env bash
# Builds the station's program: with cgo, for PKCS#11, where there is a C compiler; without it otherwise, and says so.
set -euo pipefail
if command -v cc >/dev/null 2>&1; then
  CGO_ENABLED=1 go build -trimpath -ldflags '-s -w' -o "$1" ./cmd/hallmark-station
else
  echo "no C compiler: hallmark-station is built without PKCS#11 and keeps its keys in files" >&2
  CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$1" ./cmd/hallmark-station
fi
