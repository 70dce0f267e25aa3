#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
if [ ! -e /var/lib/hallmark/config.json ]; then
  echo "hallmark: make an instance with: sudo -u hallmark hallmark init --dir /var/lib/hallmark --oem NAME --product NAME --hardware REV"
fi
