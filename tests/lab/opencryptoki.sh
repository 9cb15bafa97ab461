#!/bin/bash
# opencryptoki.sh COMMAND...: run it beside an openCryptoki of its own, whose software token is empty.
#
# openCryptoki has fixed paths and one slot daemon a machine: this one lives in namespaces of its own (mounts, SysV
# IPC, processes), and ends with them. Needs root. The token's label and PIN are in TOKEN_LABEL and TOKEN_PIN.
set -e
if [ -z "$OPENCRYPTOKI_PLACE" ]; then
    export OPENCRYPTOKI_PLACE=$(mktemp -d)
    trap 'rm -rf "$OPENCRYPTOKI_PLACE"' EXIT
    unshare --mount --ipc --pid --fork --mount-proc "$0" "$@"
    exit
fi
place=$OPENCRYPTOKI_PLACE
mount --make-rprivate /
mkdir "$place/etc" "$place/state"
printf 'version opencryptoki-3.1\nslot 0\n{\nstdll = libpkcs11_sw.so\n}\n' > "$place/etc/opencryptoki.conf"
mkdir -p "$place/state/swtok/TOK_OBJ" "$place/state/lite/TOK_OBJ"
chgrp -R pkcs11 "$place/state"
chmod -R 770 "$place/state"
mount --bind "$place/etc" /etc/opencryptoki
mount --bind "$place/state" /var/lib/opencryptoki
mount -t tmpfs none /run
mount -t tmpfs -o mode=1777 none /dev/shm # the token keeps its state there, too
mkdir -p /run/lock/opencryptoki/swtok /run/lock/opencryptoki/lite
chgrp -R pkcs11 /run/lock/opencryptoki
chmod -R 770 /run/lock/opencryptoki
timeout 10 pkcsslotd
{
    printf '87654321\n%s\n' "$TOKEN_LABEL" | pkcsconf -I -c 0
    printf '87654321\n76543210\n76543210\n' | pkcsconf -P -c 0
    printf '76543210\n%s\n%s\n' "$TOKEN_PIN" "$TOKEN_PIN" | pkcsconf -u -c 0
} > "$place/pkcsconf" 2>&1 || { cat "$place/pkcsconf" >&2; exit 1; }
"$@"
