#!/bin/sh
set -e
if ! grep -q '^hallmark-keys:' /etc/passwd; then
  useradd --system --home-dir /var/lib/hallmark-keys --no-create-home --shell /usr/sbin/nologin --user-group hallmark-keys
fi
mkdir -p /var/lib/hallmark-keys
chown hallmark-keys:hallmark-keys /var/lib/hallmark-keys
chmod 0700 /var/lib/hallmark-keys
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload || true
  if systemctl is-active --quiet hallmark-agent; then
    echo "hallmark-agent: the new agent starts when the machine does: a start of the device is a reset"
  fi
fi
if [ ! -e /etc/hallmark-agent/board.json ]; then
  echo "hallmark-agent: describe the board in /etc/hallmark-agent/board.json: see /usr/share/doc/hallmark-agent/board.md"
fi
