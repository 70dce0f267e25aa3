#!/usr/bin/env bash
# Installs what the tests need, runs them all, and says at the end what did not run and why.
set -euo pipefail
cd "$(dirname "$0")/.."
missing=()
while read -r package; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done < scripts/packages.txt
if [ "${#missing[@]}" -gt 0 ]; then
  if [ "$(id -u)" = 0 ]; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    echo "Some tests need packages that are not installed. Run: sudo apt-get install ${missing[*]}" >&2
  fi
fi
exec go run ./internal/testrun "$@"
