#!/bin/bash
# fetch.sh CACHE: Debian's cloud kernel and kmod, unpacked in CACHE/packages. Uses apt.
set -euo pipefail
mkdir -p "$1/packages"
cd "$1/packages"
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n1)
[ -n "$kernel" ] || { echo "fetch.sh: apt knows no linux-image-cloud-amd64" >&2; exit 1; }
# The download runs as root: _apt may not enter the caller's cache.
apt-get -o APT::Sandbox::User=root download -q "$kernel" kmod libkmod2
dpkg-deb -x "$kernel"_*.deb kernel
for package in kmod_*.deb libkmod2_*.deb; do dpkg-deb -x "$package" kmod; done
rm -f -- *.deb
