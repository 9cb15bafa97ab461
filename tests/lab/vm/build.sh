#!/bin/bash
# build.sh CACHE: the kernel and the initial root of the VM, from CACHE/packages and this host's programs.
# Leaves CACHE/vmlinux and CACHE/base.cpio.
set -euo pipefail
cache=$1
here=$(cd "$(dirname "$0")" && pwd)
kernel=$cache/packages/kernel
kmod=$cache/packages/kmod
version=$(ls "$kernel/lib/modules" | head -n1)
triplet=x86_64-linux-gnu
export PATH=/usr/sbin:/sbin:$PATH
export LD_LIBRARY_PATH=$kmod/lib/$triplet:$kmod/usr/lib/$triplet

root=$cache/root
rm -rf "$root"
mkdir -p "$root"/{usr/bin,usr/sbin,usr/lib/$triplet,lib64,proc,sys,dev,run/cryptsetup,tmp,out,in,etc/ssl,mnt}
ln -s usr/lib "$root/lib"
ln -s usr/bin "$root/bin"
ln -s usr/sbin "$root/sbin"

add() { # add PROGRAM PLACE: a program with its libraries
    cp -L --remove-destination "$1" "$root$2"
    { ldd "$1" 2>/dev/null || true; } | sed -n 's/.* => \(\/[^ ]*\).*/\1/p' | while read -r library; do
        [ -e "$root/usr/lib/$triplet/${library##*/}" ] || cp -L "$library" "$root/usr/lib/$triplet/"
    done
}

busybox=$(command -v busybox)
add "$busybox" /usr/bin/busybox
for applet in $("$busybox" --list); do
    case $applet in busybox | modprobe | losetup | blockdev | dd | sh) continue ;; esac
    ln -s busybox "$root/usr/bin/$applet"
done
cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64/"
add "$kmod/bin/kmod" /usr/bin/kmod
for name in modprobe lsmod; do ln -sf ../bin/kmod "$root/usr/sbin/$name"; done
for name in cryptsetup dmsetup losetup blockdev mke2fs e2fsck; do add "$(command -v $name)" "/usr/sbin/$name"; done
for name in bash dd sha256sum xxd cmp; do add "$(command -v $name)" "/usr/bin/$name"; done
ln -s bash "$root/usr/bin/sh"
# OpenSSL's legacy provider has the hashes that old volumes name.
cp -r "/usr/lib/$triplet/ossl-modules" "$root/usr/lib/$triplet/"
cp /etc/ssl/openssl.cnf "$root/etc/ssl/"
cp /etc/mke2fs.conf "$root/etc/"
echo 'root:x:0:0:root:/:/bin/sh' > "$root/etc/passwd"

modules=$root/usr/lib/modules/$version
mkdir -p "$modules"
cp "$kernel/lib/modules/$version"/modules.{order,builtin,builtin.modinfo} "$modules/"
(
    cd "$kernel/lib/modules/$version"
    find kernel/crypto kernel/lib kernel/arch/x86/crypto kernel/drivers/virtio -name '*.ko' ! -name 'tcrypt.ko'
    find kernel/drivers/md -name 'dm-mod.ko' -o -name 'dm-crypt.ko' -o -name 'dm-bufio.ko' -o -name 'dm-integrity.ko'
    find kernel/drivers -name 'loop.ko' -o -name 'virtio_blk.ko' -o -name 'virtio_console.ko' -o -name 'dax.ko' -o -name 'rng-core.ko'
    find kernel/fs -name 'ext4.ko' -o -name 'jbd2.ko' -o -name 'mbcache.ko'
) | sort -u | while read -r module; do
    install -D -m 644 "$kernel/lib/modules/$version/$module" "$modules/$module"
done
ln -sf "$kmod/bin/kmod" "$cache/depmod"
"$cache/depmod" -b "$root" "$version" 2>/dev/null
install -m 755 "$here/init" "$root/init"
(cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc --quiet -R 0:0) > "$cache/base.cpio.new"
python3 "$here/extract_vmlinux.py" "$kernel/boot/vmlinuz-$version" "$cache/vmlinux"
rm -rf "$root"
mv "$cache/base.cpio.new" "$cache/base.cpio"
