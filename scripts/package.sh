#!/usr/bin/env bash
# Packages server, station and agent as .deb and .rpm in dist/, the server also as an OCI image of both architectures, with checksums,
# what each is made of (CycloneDX) and a statement of what was built from which commit (in-toto, SLSA). The same commit gives the same bytes:
# nothing of the time, the path or the machine goes in.
#
#   scripts/package.sh            VERSION=1.2.3 GOARCH=arm64 to say otherwise; HALLMARK_PROVENANCE_KEY=key.pem has the statement signed
#
# The packages hold static programs; the station's PKCS#11 support needs cgo, and is built from source where an HSM is.
set -euo pipefail
key=${HALLMARK_PROVENANCE_KEY:+$(realpath "$HALLMARK_PROVENANCE_KEY")}
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
commit=$(git describe --always --abbrev=40 --exclude='*' --dirty) # what is not committed is said, and so never stated as what is
built=(-version "$VERSION" -commit "$commit" -epoch "$SOURCE_DATE_EPOCH")
build() { # build ARCH PROGRAM FILE
  GOARCH=$1 go build -trimpath -buildvcs=false -ldflags "-s -w -X github.com/hallmark-iot/hallmark/internal/cli.version=$VERSION" -o "$3" "./cmd/$2"
}
for p in hallmark hallmark-station hallmark-agent; do build "$GOARCH" "$p" "$STAGE/$p"; done
env -u GOARCH -u GOOS GOFLAGS=-mod=readonly go -C tools build -o "$STAGE/pack" ./pack
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
  "$STAGE/pack" sbom "${built[@]}" -o "dist/$p-$VERSION-$GOARCH.cdx.json" "$STAGE/$p"
done
for arch in amd64 arm64; do build "$arch" hallmark "$STAGE/hallmark-$arch"; done
"$STAGE/pack" image "${built[@]}" -o dist/hallmark-oci.tar "amd64=$STAGE/hallmark-amd64" "arm64=$STAGE/hallmark-arm64"
cd dist
rm -f -- *.modules.txt *.intoto.jsonl
files=(*"$VERSION"*.deb *"$VERSION"*.rpm *"$VERSION"*.cdx.json hallmark-oci.tar) # of this build alone, whatever else lies here
"$STAGE/pack" provenance "${built[@]}" -key "$key" -o hallmark-provenance.json "${files[@]}"
sha256sum -- "${files[@]}" hallmark-provenance.json >SHA256SUMS
ls -l
