#!/usr/bin/env bash
# Formats and lints; any finding fails. The linter is built from its own module, once per version.
set -euo pipefail
cd "$(dirname "$0")/.."
bin="$PWD/.cache/bin"
stamp="$bin/$(sha256sum tools/go.mod | cut -c1-16)"
if [ ! -e "$stamp" ]; then
  mkdir -p "$bin"
  GOBIN="$bin" go -C tools install github.com/golangci/golangci-lint/v2/cmd/golangci-lint mvdan.cc/gofumpt
  touch "$stamp"
fi
unformatted=$("$bin/gofumpt" -l $(git ls-files '*.go' | grep -v _templ.go))
if [ -n "$unformatted" ]; then
  echo "not formatted (make fmt):" >&2
  echo "$unformatted" >&2
  exit 1
fi
go vet ./...
"$bin/golangci-lint" run ./...
