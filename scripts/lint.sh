#!/usr/bin/env bash
# Formats, generated files, vet, linters; any finding fails, and so does a linter that cannot be built or run.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOFLAGS="${GOFLAGS:--buildvcs=false}"

gofumpt=$(scripts/tool.sh gofumpt)
golangci=$(scripts/tool.sh golangci-lint)
templ=$(scripts/tool.sh templ)
failed=0

mapfile -t files < <(git ls-files '*.go' | grep -Ev '_templ\.go$|\.gen\.go$')
[ "${#files[@]}" -gt 0 ] || { echo "lint: git lists no Go file: run it in a clone" >&2; exit 1; }
unformatted=$("$gofumpt" -l "${files[@]}")
if [ -n "$unformatted" ]; then
  printf 'not formatted (make fmt):\n%s\n' "$unformatted" >&2
  failed=1
fi

while read -r page; do
  if ! (cd "$(dirname "$page")" && "$templ" generate -f "$(basename "$page")" -stdout 2>/dev/null | cmp -s - "$(basename "${page%.templ}_templ.go")"); then
    echo "not generated from its source (make generate): ${page%.templ}_templ.go" >&2
    failed=1
  fi
done < <(git ls-files '*.templ')

# A tool whose checksums are not in tools/go.sum is built where it is cached, and nowhere else.
if ! GOFLAGS=-mod=mod go -C tools mod tidy -diff; then
  echo "tools/go.mod or go.sum is not tidy: go -C tools mod tidy" >&2
  failed=1
fi

go vet ./... || failed=1
go -C tools vet ./... || failed=1
go -C tools/tlog vet ./... || failed=1
go -C tools/estclient vet ./... || failed=1
go -C tools/certlint vet ./... || failed=1
go -C tools/vsa vet ./... || failed=1
"$golangci" run ./... || failed=1
exit "$failed"
