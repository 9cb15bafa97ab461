#!/bin/bash
# rootfs.sh CACHE: CACHE/root, a small Debian with systemd as this machine's, for container and virtual machine. One that
# is there already is made anew only if another version of this file made it.
# Needs root, mmdebstrap and the Debian mirror that apt uses.
set -euo pipefail
cache=$1
made_by=$(sha256sum < "$0")
[ "$(cat "$cache/root.made-by" 2> /dev/null)" != "$made_by" ] || exit 0
. /etc/os-release
suite=${VERSION_CODENAME:?}
mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' | sed -n "s/^$suite //p" | head -n1)
[ -n "$mirror" ] || { echo "rootfs.sh: apt names no mirror of $suite" >&2; exit 1; }
packages=systemd,systemd-sysv,dbus,udev,kmod,python3,fuse3,libfuse3-3,libgcrypt20,libargon2-1,e2fsprogs,mount,procps,softhsm2,swtpm,tpm2-tools
mkdir -p "$cache"
rm -rf "$cache/root.new"
mmdebstrap --quiet --variant=minbase --include="$packages" "$suite" "$cache/root.new" "$mirror"
root=$cache/root.new
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}
sed -i 's/^root:[^:]*:/root::/' "$root/etc/shadow"
echo 0123456789abcdef0123456789abcdef > "$root/etc/machine-id"
printf '[Journal]\nStorage=volatile\nForwardToConsole=no\nRateLimitBurst=0\n' > "$root/etc/systemd/journald.conf"
# What would only cost time.
for unit in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    dpkg-db-backup.timer console-getty.service getty@tty1.service serial-getty@ttyS0.service systemd-networkd.service \
    systemd-logind.service systemd-timesyncd.service systemd-pstore.service systemd-hwdb-update.service \
    systemd-udev-settle.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
# The last unit of a boot runs the test.
cat > "$root/etc/systemd/system/test.service" << 'UNIT'
[Unit]
Description=The test
After=multi-user.target
[Service]
ExecStart=/run-test
TimeoutStopSec=20
UNIT
cat > "$root/etc/systemd/system/test.target" << 'UNIT'
[Unit]
Description=All of a boot, then the test
Requires=multi-user.target
Wants=test.service
After=multi-user.target
AllowIsolate=yes
UNIT
ln -sf test.target "$root/etc/systemd/system/default.target"
rm -rf "$cache/root" "$cache/root.made-by"
mv -T "$root" "$cache/root"
echo "$made_by" > "$cache/root.made-by"
