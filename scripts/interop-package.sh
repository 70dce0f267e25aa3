#!/usr/bin/env bash
# What make package gives: built twice, in two directories, the bytes are the same; what the guide says about verifying them holds; foreign tools
# read the image, and the server in it runs. 75 when one of these tools could not be had.
set -euo pipefail
cd "$(dirname "$0")/.."
have() { for t in "$@"; do command -v "$t" >/dev/null || return 1; done; } # `command -v` of many is content with one
if ! have skopeo umoci && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends skopeo umoci openssl curl; } </dev/null >/dev/null || true
fi
for tool in skopeo umoci openssl curl; do
  command -v "$tool" >/dev/null || { echo "package: NOT RUN: it needs $tool" >&2; exit 75; }
done
[ "$(id -u)" = 0 ] || { echo "package: NOT RUN: only root changes its root directory" >&2; exit 75; }

dir=$(mktemp -d)
server=
finish() {
  if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
  git worktree remove --force "$dir/a" 2>/dev/null || true
  git worktree remove --force "$dir/longer/b" 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT
openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$dir/key.pem" 2>/dev/null ||
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$dir/key.pem"
mkdir -p .cache/bin "$dir/longer"
for at in a longer/b; do
  git worktree add -q --detach "$dir/$at" HEAD
  mkdir "$dir/$at/.cache" && ln -s "$PWD/.cache/bin" "$dir/$at/.cache/bin"
  HALLMARK_PROVENANCE_KEY="$dir/key.pem" "$dir/$at/scripts/package.sh" >/dev/null
done
cmp "$dir/a/dist/SHA256SUMS" "$dir/longer/b/dist/SHA256SUMS"
echo "the same bytes twice: $(wc -l <"$dir/a/dist/SHA256SUMS") files"

openssl pkey -in "$dir/key.pem" -pubout -out "$dir/a/public.pem"
sed -n '/^```sh$/,/^```$/p' docs/guide/install.md | grep -v '^```' >"$dir/verify.sh"
(cd "$dir/a" && bash -euo pipefail "$dir/verify.sh")
echo damaged >>"$dir/a/dist/hallmark-oci.tar"
if (cd "$dir/a" && bash -euo pipefail "$dir/verify.sh") >/dev/null 2>&1; then echo "a damaged file was verified" >&2; exit 1; fi

arch=$(go env GOHOSTARCH)
for program in hallmark hallmark-agent hallmark-station; do # the SBOM has what the go command finds in the program, no less and no more
  go version -m "$dir/longer/b/.cache/package-$arch/$program" | awk '$1 == "dep" {print "pkg:golang/" $2 "@" $3}' | sort >"$dir/found"
  sed -n 's/^ *"purl": "\(.*\)",\?$/\1/p' "$dir/longer/b/dist/$program"-[0-9]*"-$arch.cdx.json" |
    grep -v -e '^pkg:golang/std@' -e '^pkg:golang/github.com/hallmark-iot/hallmark@' | sort >"$dir/listed"
  [ -s "$dir/found" ] && cmp "$dir/found" "$dir/listed"
done

image=$dir/longer/b/dist/hallmark-oci.tar
tag=$(tar -xOf "$image" index.json | sed -n 's/.*ref.name": *"\([^"]*\)".*/\1/p')
for arch in amd64 arm64; do
  skopeo --override-arch "$arch" inspect --format '{{.Architecture}} {{.Labels}}' "oci-archive:$image:$tag" | grep "^$arch .*revision:$(git rev-parse HEAD)" >/dev/null
done
skopeo copy -q --all "oci-archive:$image:$tag" "oci:$dir/all:hallmark" # every digest is looked at
skopeo --override-arch "$(go env GOHOSTARCH)" copy -q "oci-archive:$image:$tag" "oci:$dir/one:hallmark"
umoci unpack --image "$dir/one:hallmark" "$dir/bundle" >/dev/null 2>&1
inside() { HALLMARK_PASSPHRASE=pass exec chroot --userspec=65532:65532 "$dir/bundle/rootfs" /usr/bin/hallmark "$@"; }
(inside --version)
(inside init --dir /data --kdf-iterations 1000 --oem acme --product pump --hardware A --api 127.0.0.1:0 --devices 127.0.0.1:0) >/dev/null
inside serve --dir /data >"$dir/serve.out" 2>"$dir/serve.err" &
server=$!
url=
for _ in $(seq 100); do
  url=$(sed -n 's/^console and API *\(http[^ ]*\).*/\1/p' "$dir/serve.out")
  [ -n "$url" ] && break
  sleep 0.1
done
[ -n "$url" ] || { cat "$dir/serve.err" >&2; exit 1; }
curl -fsS --retry 5 "$url/healthz"
echo
echo "PACKAGE OK"
