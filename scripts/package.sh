#!/usr/bin/env bash
# Packages server, station and agent as .deb and .rpm in dist/, with checksums and the modules they were built from. The same commit
# gives the same bytes: nothing of the time, the path or the machine goes in.
#
#   scripts/package.sh            VERSION=1.2.3 GOARCH=arm64 to say otherwise
#
# The packages hold static programs; the station's PKCS#11 support needs cgo, and is built from source where an HSM is.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOARCH="${GOARCH:-$(go env GOHOSTARCH)}" CGO_ENABLED=0 GOOS=linux
export VERSION="${VERSION:-$(git describe --tags --match 'v*' 2>/dev/null | sed s/^v// || true)}"
export VERSION="${VERSION:-0.0.0~git$(git rev-parse --short=12 HEAD)}"
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
STAMP=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
STAGE="$PWD/.cache/package-$GOARCH"
export STAMP STAGE
nfpm=$(env -u GOARCH -u GOOS scripts/tool.sh nfpm)
rm -rf "$STAGE" && mkdir -p "$STAGE" dist
for p in hallmark hallmark-station hallmark-agent; do
  go build -trimpath -buildvcs=false -ldflags "-s -w" -o "$STAGE/$p" "./cmd/$p"
done
# The pages and completions come of the program itself, built for this machine.
env -u GOARCH -u GOOS go build -trimpath -buildvcs=false -o "$STAGE/host" ./cmd/hallmark
"$STAGE/host" man --dir "$STAGE/man" 2>/dev/null
gzip -n9 "$STAGE"/man/*.1
"$STAGE/host" completion bash >"$STAGE/hallmark.bash"
"$STAGE/host" completion zsh >"$STAGE/_hallmark"
for p in server station agent; do
  # nfpm fills in no variables in its contents: the shell does.
  sed -e "s|\${STAGE}|$STAGE|g; s|\${STAMP}|$STAMP|g; s|\${GOARCH}|$GOARCH|g; s|\${VERSION}|$VERSION|g" "packaging/nfpm-$p.yaml" >"$STAGE/nfpm-$p.yaml"
  for format in deb rpm; do
    "$nfpm" package -f "$STAGE/nfpm-$p.yaml" -p "$format" -t dist/ >/dev/null
  done
done
for p in hallmark hallmark-station hallmark-agent; do # what is inside, for whoever has to ask
  go version -m "$STAGE/$p" | sed "s|^$STAGE/||" >"dist/$p-$VERSION-$GOARCH.modules.txt"
done
(cd dist && sha256sum -- *.deb *.rpm *.modules.txt >SHA256SUMS)
ls -l dist
