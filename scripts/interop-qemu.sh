#!/usr/bin/env bash
# A device on a real kernel, in QEMU with a TPM: made, updated over restarts, its power cut. Debian's kernel and busybox are taken out of their
# packages and not installed. The same device lives from its package on, under systemd: in a small Debian that mmdebstrap makes. 75 when one of these could not be had.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(uname -m)" = x86_64 ] || { echo "qemu: NOT RUN: the guest is made for x86-64" >&2; exit 75; }
have() { for t in "$@"; do command -v "$t" >/dev/null || return 1; done; } # `command -v` of many is content with one
if ! have qemu-system-x86_64 swtpm cpio mmdebstrap mke2fs veritysetup fw_setenv mkenvimage && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-system-x86 swtpm cpio mmdebstrap e2fsprogs cryptsetup-bin libubootenv-tool u-boot-tools; } </dev/null >/dev/null || true
fi
for tool in qemu-system-x86_64 swtpm cpio dpkg-deb mmdebstrap mke2fs veritysetup fw_setenv mkenvimage; do
  command -v "$tool" >/dev/null || { echo "qemu: NOT RUN: it needs $tool" >&2; exit 75; }
done

at=$PWD/.cache/qemu
modules=(virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk failover net_failover virtio_net watchdog softdog
  mtd mtdram bch nandcore nand nandsim crc16 crc32c_generic libcrc32c mbcache jbd2 ext4 dm-mod dm-bufio reed_solomon dm-verity)
fetch() {
  local dir image
  dir=$(mktemp -d)
  chmod 755 "$dir"
  image=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p')
  (cd "$dir" && apt-get -o APT::Sandbox::User=root download -qq "$image" busybox-static && for p in *.deb; do dpkg-deb -x "$p" x; done) || { rm -rf "$dir"; return 1; }
  rm -rf "$at" && mkdir -p "$at/modules"
  for m in "${modules[@]}"; do find "$dir/x" -name "$m.ko" -exec cp {} "$at/modules/" \;; done
  cp "$dir/x/bin/busybox" "$at/busybox"
  cp "$dir"/x/boot/vmlinuz-* "$at/vmlinuz" # last: with it, all is there
  rm -rf "$dir"
}
[ -e "$at/vmlinuz" ] && [ -e "$at/modules/dm-verity.ko" ] || fetch || { echo "qemu: NOT RUN: Debian's kernel could not be fetched" >&2; exit 75; }
debian() {
  mmdebstrap --quiet --format=tar --variant=minbase --include=systemd-sysv,dbus --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$at/debian.tar.new" && rm -rf "$at/debian.tar" && mv "$at/debian.tar.new" "$at/debian.tar" # by its name alone it would be taken for a directory's
}
[ -f "$at/debian.tar" ] || debian || { echo "qemu: NOT RUN: a Debian for systemd could not be made" >&2; exit 75; }
HALLMARK_QEMU=$at HALLMARK_NFPM=$(scripts/tool.sh nfpm) go test -count=1 -v -timeout 60m -run 'TestADeviceInQEMU|TestFlashPartsInQEMU|TestThePackageUnderSystemd|TestABankUnderVerity' ./internal/demo
echo "QEMU OK"
