#!/usr/bin/env bash
# The agent's package, installed by dpkg and by rpm into a root of their own with nothing in it but busybox and useradd: what is where, whose it is, and what an upgrade, a removal and
# a purge leave. 75 when one of these tools could not be had.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "agent: NOT RUN: only root changes its root directory" >&2; exit 75; }
have() { for t in "$@"; do command -v "$t" >/dev/null || return 1; done; } # `command -v` of many is content with one
if ! have dpkg rpm systemd-analyze useradd && command -v apt-get >/dev/null; then
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rpm systemd passwd; } </dev/null >/dev/null || true
fi
for tool in dpkg dpkg-deb rpm systemd-analyze useradd; do
  command -v "$tool" >/dev/null || { echo "agent: NOT RUN: it needs $tool" >&2; exit 75; }
done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
(cd "$dir" && apt-get -o APT::Sandbox::User=root download -qq busybox-static 2>/dev/null && dpkg-deb -x busybox-static*.deb busybox) || { echo "agent: NOT RUN: busybox could not be fetched" >&2; exit 75; }

export STAGE="$dir/stage" STAMP=2026-01-01T00:00:00Z GOARCH
GOARCH=$(go env GOHOSTARCH)
mkdir -p "$STAGE"
CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$STAGE/hallmark-agent" ./cmd/hallmark-agent
nfpm=$(scripts/tool.sh nfpm)
for version in 1.0.0 1.1.0; do
  sed -e "s|\${STAGE}|$STAGE|g; s|\${STAMP}|$STAMP|g; s|\${GOARCH}|$GOARCH|g; s|\${VERSION}|$version|g" packaging/nfpm-agent.yaml >"$dir/nfpm.yaml"
  for format in deb rpm; do "$nfpm" package -f "$dir/nfpm.yaml" -p "$format" -t "$dir/hallmark-agent-$version.$format" >/dev/null; done
done

root() { # root NAME makes a root directory, and prints it
  local r=$dir/$1
  mkdir -p "$r"/{bin,etc,dev,var/lib/dpkg/{updates,info,triggers}}
  cp "$dir/busybox/bin/busybox" "$r/bin/busybox"
  for c in sh ls mkdir chown chmod grep rm; do ln -s busybox "$r/bin/$c"; done
  local useradd
  useradd=$(command -v useradd)
  ldd "$useradd" | grep -o '/[^ ]*' | while read -r lib; do install -D "$lib" "$r$lib"; done
  cp "$useradd" "$r/bin/useradd"
  echo 'root:x:0:0:root:/root:/bin/sh' >"$r/etc/passwd"
  echo 'root:x:0:' >"$r/etc/group"
  echo 'root:*:1::::::' >"$r/etc/shadow"
  : >"$r/var/lib/dpkg/status"
  : >"$r/var/lib/dpkg/available"
  echo "$r"
}
fail() { echo "agent: $*" >&2; exit 1; }
deb() { dpkg --root="$r" --force-bad-path --force-not-root --log=/dev/null "$@" >>"$dir/out" 2>&1 || { cat "$dir/out" >&2; fail "dpkg $*"; }; }
installed() { # what is there after an installation
  for f in usr/bin/hallmark-agent usr/lib/systemd/system/hallmark-{agent.service,keys.service,keys.socket} usr/share/doc/hallmark-agent/board.md; do
    [ -f "$r/$f" ] || fail "$f is not there"
  done
  [ -d "$r/etc/hallmark-agent" ] || fail "there is no place for board.json"
  owner=$(sed -n 's/^hallmark-keys:[^:]*:\([0-9]*\):.*/\1/p' "$r/etc/passwd")
  [ -n "$owner" ] && [ "$owner" != 0 ] || fail "the keys have no user"
  [ "$(stat -c '%u %a' "$r/var/lib/hallmark-keys")" = "$owner 700" ] || fail "the keys' directory is not theirs alone: $(stat -c '%u %a' "$r/var/lib/hallmark-keys")"
  chroot "$r" /usr/bin/hallmark-agent --help >/dev/null || fail "the program does not run where there is nothing else"
}
kept() { [ "$(cat "$r/var/lib/hallmark-keys/attest.key" 2>/dev/null)" = secret ] && [ -f "$r/var/lib/hallmark-agent/parts" ]; }
lived() { # as a device that was made
  echo secret >"$r/var/lib/hallmark-keys/attest.key"
  mkdir -p "$r/var/lib/hallmark-agent" && : >"$r/var/lib/hallmark-agent/parts"
  echo '{}' >"$r/etc/hallmark-agent/board.json"
}

r=$(root debian)
deb -i "$dir/hallmark-agent-1.0.0.deb"
installed
grep -q 'describe the board in /etc/hallmark-agent/board.json' "$dir/out" || fail "nobody is told what to do next"
lived
deb -i "$dir/hallmark-agent-1.1.0.deb"
installed
kept && [ -f "$r/etc/hallmark-agent/board.json" ] || fail "an upgrade did not keep what a device is"
deb --remove hallmark-agent
[ ! -e "$r/usr/bin/hallmark-agent" ] && kept || fail "a removal left the program, or took the keys"
: >"$dir/out"
deb --purge hallmark-agent
kept || fail "a purge took the keys"
grep -q '/var/lib/hallmark-keys is left' "$dir/out" || fail "a purge does not say what it leaves"
deb -i "$dir/hallmark-agent-1.1.0.deb"
HALLMARK_PURGE_KEYS=yes dpkg --root="$r" --force-bad-path --log=/dev/null --purge hallmark-agent >/dev/null
[ ! -e "$r/var/lib/hallmark-keys" ] && [ ! -e "$r/var/lib/hallmark-agent" ] || fail "a purge that was to take the keys left them"
echo "deb: installed, upgraded, removed, purged"

r=$(root fedora)
rpm() { command rpm --root "$r" --dbpath /var/lib/rpm --nodeps --force-debian "$@" >>"$dir/out" 2>&1 || { cat "$dir/out" >&2; fail "rpm $*"; }; }
rpm -i "$dir/hallmark-agent-1.0.0.rpm"
installed
lived
rpm -U "$dir/hallmark-agent-1.1.0.rpm"
installed
kept || fail "an upgrade by rpm did not keep what a device is"
rpm -e hallmark-agent
[ ! -e "$r/usr/bin/hallmark-agent" ] && kept || fail "a removal by rpm left the program, or took the keys"
echo "rpm: installed, upgraded, removed"

mkdir -p "$dir/units" && sed "s|/usr/bin/hallmark-agent|$STAGE/hallmark-agent|" packaging/hallmark-agent.service >"$dir/units/hallmark-agent.service"
for u in keys.service keys.socket; do sed "s|/usr/bin/hallmark-agent|$STAGE/hallmark-agent|" "packaging/hallmark-$u" >"$dir/units/hallmark-$u"; done
systemd-analyze verify "$dir"/units/* 2>"$dir/verify" || true
if grep -F "$dir/units" "$dir/verify"; then fail "systemd has something against a unit"; fi
for u in "keys 1.0" "agent 6.0"; do # the exposure that the guide tells, at most
  set -- $u
  level=$(systemd-analyze security --offline=yes "packaging/hallmark-$1.service" | sed -n 's/.*Overall exposure level for .*: \([0-9.]*\) .*/\1/p')
  echo "exposure of hallmark-$1.service: $level, at most $2"
  [ -n "$level" ] && [ "$(printf '%s\n%s\n' "$level" "$2" | sort -n | tail -1)" = "$2" ] || fail "hallmark-$1.service is more exposed than that"
done
echo "AGENT OK"
