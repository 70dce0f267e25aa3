#!/usr/bin/env bash
# Prints the path of a development tool, building it first where this version of it was not yet built.
#
#   scripts/tool.sh golangci-lint        → .cache/bin/golangci-lint-v2.15.0-go1.26.8
#
# Versions are those of tools/go.mod, or of the module below tools that a tool has for itself, so that everyone and CI run the same tool. The Go version is in the name too,
# because an analyser built by an older Go cannot read what a newer one compiled. Nothing here may fail quietly: a
# tool that cannot be built fails whatever asked for it.
set -euo pipefail
cd "$(dirname "$0")/.."

in=tools
case "${1:?which tool?}" in
  benchstat)     package=golang.org/x/perf/cmd/benchstat ;;
  deadcode)      package=golang.org/x/tools/cmd/deadcode ;;
  gofumpt)       package=mvdan.cc/gofumpt ;;
  golangci-lint) package=github.com/golangci/golangci-lint/v2/cmd/golangci-lint ;;
  nfpm)          package=github.com/goreleaser/nfpm/v2/cmd/nfpm ;;
  oapi-codegen)  package=github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen ;;
  staticcheck)   package=honnef.co/go/tools/cmd/staticcheck ;;
  templ)         package=github.com/a-h/templ/cmd/templ ;;
  versitygw)     in=tools/s3server package=github.com/versity/versitygw/cmd/versitygw ;; # an S3 service, for tests
  *) echo "scripts/tool.sh: no tool named $1; the tools are in tools/go.mod" >&2; exit 2 ;;
esac

version=$(go -C "$in" list -mod=readonly -f '{{.Module.Version}}' "$package")
path="$PWD/.cache/bin/$1-$version-$(go env GOVERSION)"
if [ ! -x "$path" ]; then
  mkdir -p .cache/bin
  echo "building $1 $version (once)" >&2
  # Built beside its place and moved, so that an interrupted build leaves nothing that looks like a tool.
  CGO_ENABLED=0 GOFLAGS=-mod=readonly go -C "$in" build -trimpath -o "$path.$$" "$package"
  mv "$path.$$" "$path"
fi
echo "$path"
