#!/bin/bash
# lab.sh [-t SECONDS] [-i PATH]... [-o DIRECTORY] SCRIPT [DISK[:ro][:4k]]...
#   Boots a Debian kernel with the real dm-crypt under QEMU and runs SCRIPT in it as root.
#   The raw files DISK appear as /dev/vda, /dev/vdb, ... (:ro read only, :4k 4096-byte blocks);
#   each PATH appears in /in; what the script leaves in /out is unpacked in DIRECTORY.
# Exit status: the script's; 124 out of time; 125 the VM could not be made or died.
# What is downloaded and built stays in ${FUSECRYPT_LAB_CACHE:-~/.cache/fusecrypt-lab-vm}.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${FUSECRYPT_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fusecrypt-lab-vm}
seconds=120
output=
inputs=()
usage() { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 125; }
while getopts t:i:o: option; do
    case $option in
        t) seconds=$OPTARG ;;
        i) inputs+=("$OPTARG") ;;
        o) output=$OPTARG ;;
        *) usage ;;
    esac
done
shift $((OPTIND - 1))
[ $# -ge 1 ] && [ -f "$1" ] || usage
script=$1
shift

mkdir -p "$cache"
(
    flock 9
    [ -d "$cache/packages/kernel" ] || bash "$here/vm/fetch.sh" "$cache"
    [ -f "$cache/base.cpio" ] && [ "$cache/base.cpio" -nt "$here/vm/init" ] || bash "$here/vm/build.sh" "$cache"
) 9> "$cache/lock" >&2 || exit 125

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/extra/lab" "$work/extra/in"
cp "$script" "$work/extra/lab/script.sh"
for path in "${inputs[@]}"; do cp -rL "$path" "$work/extra/in/"; done
(cat "$cache/base.cpio"; cd "$work/extra" && find . | cpio -o -H newc --quiet -R 0:0) > "$work/initrd"

devices=()
attach() { # attach FILE DRIVE-OPTIONS SERIAL DEVICE-OPTIONS
    local id=disk$((${#devices[@]} / 4))
    devices+=(-drive "id=$id,if=none,format=raw,file=${1//,/,,}$2")
    devices+=(-device "virtio-blk-pci,drive=$id,serial=$3$4")
}
for disk in "$@"; do
    read_only=
    blocks=
    while :; do
        case $disk in
            *:ro) read_only=,readonly=on disk=${disk%:ro} ;;
            *:4k) blocks=,logical_block_size=4096,physical_block_size=4096 disk=${disk%:4k} ;;
            *) break ;;
        esac
    done
    [ -e "$disk" ] || { echo "lab.sh: no disk $disk" >&2; exit 125; }
    attach "$disk" "$read_only" lab "$blocks"
done
if [ -n "$output" ]; then
    truncate -s 512M "$work/out.img"
    attach "$work/out.img" "" labout ""
fi

touch "$work/out" "$work/status"
result=0
timeout -k 5 "$seconds" qemu-system-x86_64 \
    -M q35 -accel tcg,thread=multi,tb-size=256 -cpu max,pcid=off,la57=off,smap=off -smp 2 -m 768 \
    -nodefaults -no-user-config -display none -no-reboot -serial "file:$work/console" \
    -kernel "$cache/vmlinux" -initrd "$work/initrd" \
    -append "console=ttyS0 quiet loglevel=3 nokaslr mitigations=off cryptomgr.notests=1 random.trust_cpu=1 panic=-1 tsc=reliable no_timer_check nowatchdog audit=0" \
    -device virtio-serial-pci \
    -chardev "file,id=out,path=$work/out" -device virtserialport,chardev=out,name=lab.out \
    -chardev "file,id=status,path=$work/status" -device virtserialport,chardev=status,name=lab.status \
    -device virtio-rng-pci "${devices[@]}" > "$work/qemu.log" 2>&1 < /dev/null || result=$?
cat "$work/out"
status=$(sed -n 's/^status \([0-9]*\)$/\1/p' "$work/status" | tail -n1)
if [ -z "$status" ]; then
    cat "$work/qemu.log" >&2
    tail -n 30 "$work/console" >&2
    [ "$result" != 124 ] || exit 124
    exit 125
fi
if [ -n "$output" ]; then
    mkdir -p "$output"
    tar -x -m -C "$output" -f "$work/out.img"
fi
exit "$status"
