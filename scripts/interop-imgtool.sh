#!/usr/bin/env bash
# imgtool, MCUboot's own, on the images that are written here. 75 when it could not be had.
set -euo pipefail
cd "$(dirname "$0")/.."
version=2.5.0
tools=$PWD/.cache/imgtool
if ! [ -x "$tools/bin/imgtool" ] || ! "$tools/bin/imgtool" version | grep -qx "$version"; then
  if ! { python3 -m venv "$tools" && "$tools/bin/pip" -q install "imgtool==$version"; }; then
    echo "imgtool: NOT RUN: it needs python3-venv and a package index" >&2
    exit 75 # EX_TEMPFAIL: not run is not a failure, and not a success
  fi
fi
go test -count=1 -run 'TestInteropImgtool' ./wire/mcuboot
echo "IMGTOOL OK"
