#!/usr/bin/env bash
# Installs the Debian packages the tests use (scripts/packages.txt). Where it may not, it prints the one line to run and
# goes on: the tests that lack a program say so at the end, and where CI is set they fail.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
while read -r package; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done < scripts/packages.txt
[ "${#missing[@]}" -gt 0 ] || exit 0

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
