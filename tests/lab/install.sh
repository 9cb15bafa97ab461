#!/bin/sh
# install.sh [--vm]: Debian packages that the tests need and that are not there yet. Needs root.
# --vm adds what the virtual machine with the real dm-crypt needs.
set -eu
packages="cryptsetup-bin e2fsprogs fio fuse3 gdb libnbd-bin nbdkit strace util-linux xz-utils"
[ "${1:-}" != --vm ] ||
    packages="$packages busybox-static cpio dmsetup lz4 qemu-system-x86 xxd"
missing=
for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "install.sh: not root, and these packages are missing:$missing" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086  # a list of words
apt-get install -y -q --no-install-recommends $missing || {
    apt-get update -q && apt-get install -y -q --no-install-recommends $missing
}
