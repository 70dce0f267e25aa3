#!/bin/sh
set -e
if ! getent passwd hallmark >/dev/null; then
  useradd --system --home-dir /var/lib/hallmark --shell /usr/sbin/nologin --user-group hallmark
fi
