#!/bin/sh
set -e
# $1 is remove or upgrade (deb), 0 or 1 (rpm): an upgrade stops nothing.
case "$1" in
remove | 0)
  if [ -d /run/systemd/system ]; then systemctl disable --now hallmark-agent.service hallmark-keys.socket hallmark-keys.service || true; fi
  ;;
esac
