#!/bin/bash
# vm.sh FILES SCRIPT [SECONDS]: as container.sh, but in a machine with a kernel and a udev of its own, under QEMU.
# Minutes: every instruction is emulated.
set -u
here=$(cd "$(dirname "$0")" && pwd)
cache=${FUSECRYPT_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fusecrypt-lab-systemd}
files=$(realpath "$1") script=$(realpath "$2") seconds=${3:-1200}

mkdir -p "$cache"
(
    flock 9
    bash "$here/rootfs.sh" "$cache" || exit 1
    [ -d "$cache/packages/kernel" ] || bash "$here/../../lab/vm/fetch.sh" "$cache"
) 9> "$cache/lock" >&2 || exit 125
work=$(mktemp -d "${TMPDIR:-/tmp}/fusecrypt-vm.XXXXXX")
machine=
trap '[ -z "$machine" ] || kill "$machine" 2> /dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

mkdir "$work/root"
cp -a "$cache/root/." "$work/root/"
cp -a "$files/." "$work/root/"
mkdir -p "$work/root/usr/lib/modules"
cp -a "$cache"/packages/kernel/lib/modules/. "$work/root/usr/lib/modules/"
kernel=$(ls "$cache"/packages/kernel/boot/vmlinuz-*)
chroot "$work/root" depmod "${kernel##*/vmlinuz-}" || exit 125
echo loop > "$work/root/etc/modules-load.d/test.conf"
sed -i 's|^[^#].* / .*||' "$work/root/etc/fstab" 2> /dev/null
echo '/dev/nvme0n1 / ext4 defaults 0 1' >> "$work/root/etc/fstab"
install -m 755 "$script" "$work/root/test-script"
cat > "$work/root/run-test" << 'RUN'
#!/bin/bash
export BOOT=$(($(cat /boots 2> /dev/null || echo 0) + 1)) HOME=/root LC_ALL=C.UTF-8
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
echo "$BOOT" > /boots
cd /root
/test-script < /dev/null > /dev/ttyS1 2>&1
status=$?
if [ "$status" = 194 ]; then exec systemctl reboot; fi
echo "@@status $status" > /dev/ttyS1
exec systemctl poweroff
RUN
chmod 755 "$work/root/run-test"
truncate -s 2G "$work/disk"
mke2fs -q -t ext4 -d "$work/root" "$work/disk" || exit 125
rm -rf "$work/root"

# Emulated unless FUSECRYPT_LAB_ACCEL=kvm: a /dev/kvm inside of a virtual machine may be there and not work.
accelerator=tcg,thread=multi,tb-size=512 processor=max,la57=off,pcid=off
[ "${FUSECRYPT_LAB_ACCEL:-tcg}" = tcg ] || accelerator=$FUSECRYPT_LAB_ACCEL processor=host
timeout -k 5 "$seconds" qemu-system-x86_64 -M q35,hpet=off -accel "$accelerator" -cpu "$processor" -smp 2 -m 1024 \
    -nodefaults -no-user-config -display none -kernel "$kernel" \
    -append "root=/dev/nvme0n1 rw rootfstype=ext4 console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check \
        random.trust_cpu=on systemd.show_status=0" \
    -drive "file=$work/disk,if=none,id=disk,format=raw,cache=unsafe" -device nvme,serial=root,drive=disk \
    -device virtio-rng-pci -serial "file:$work/console" -serial "file:$work/said" < /dev/null 2> "$work/qemu" &
machine=$!
wait "$machine"
ended=$?
machine=
tr -d '\r' < "$work/said" | sed '/^@@status /d'
status=$(tr -d '\r' < "$work/said" | sed -n 's/^@@status //p')
[ -n "$status" ] && exit "$status"
echo "vm.sh: no verdict (status $ended); the console:" >&2
tail -n 40 "$work/console" "$work/qemu" >&2
[ "$ended" != 124 ] || exit 124
exit 125
