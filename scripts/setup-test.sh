#!/usr/bin/env bash
# Installs the Debian packages the tests use (scripts/packages.txt). Where it may not, it prints the one line to run and
# goes on: the tests that lack a program say so at the end, and where CI is set they fail.
set -euo pipefail
cd "$(dirname "$0")/.."

# fetch_axe brings axe-core, which looks for barriers in the console's pages, from the npm registry.
fetch_axe() {
  local want=880970c081707360e64f34cea25ff91892f5bc95675b0776925b9709dd8a68bb at=.cache/axe.min.js
  [ -e "$at" ] && return
  mkdir -p .cache
  if ! curl -fsS --retry 3 https://registry.npmjs.org/axe-core/-/axe-core-4.10.3.tgz | tar -xzO package/axe.min.js >"$at.new"; then
    echo "axe-core could not be fetched; its test says so" >&2
  elif [ "$(sha256sum <"$at.new" | cut -d' ' -f1)" != "$want" ]; then
    echo "axe-core is not what was expected; its test says so" >&2
  else
    mv "$at.new" "$at"
  fi
  rm -f "$at.new"
}

scripts/tool.sh versitygw >/dev/null || echo "the S3 service could not be built; its tests say so" >&2

missing=()
while read -r package; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done < scripts/packages.txt
if [ "${#missing[@]}" -eq 0 ]; then
  fetch_axe
  exit 0
fi

line="apt-get install --no-install-recommends ${missing[*]}"
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  echo "Some tests need packages that are not installed. Run: sudo $line" >&2
  exit 0
fi
echo "installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } </dev/null >/dev/null; then
  echo "Some packages could not be installed. When apt works again, run: sudo $line" >&2
fi
fetch_axe
