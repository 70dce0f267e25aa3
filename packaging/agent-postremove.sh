#!/bin/sh
set -e
# Keys that are gone are a device that is gone: they stay, unless whoever purges the package asks for their end.
if [ "$1" = purge ]; then
  if [ "$HALLMARK_PURGE_KEYS" = yes ]; then
    rm -rf /var/lib/hallmark-keys /var/lib/hallmark-agent
  else
    for d in /var/lib/hallmark-keys /var/lib/hallmark-agent; do
      if [ -d "$d" ] && [ -n "$(ls -A "$d")" ]; then
        echo "hallmark-agent: $d is left: without it the device is no device. To end it: HALLMARK_PURGE_KEYS=yes, or rm -r $d"
      fi
    done
  fi
fi
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
