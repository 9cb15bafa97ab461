#!/bin/bash
# What must be true of the service in a real systemd: in a container and in a virtual machine alike.
# Of the crypttab's volumes data gets a file system that fstab mounts, raw is used as it is and moves to a file system
# of its own, asked has no key file, and sec and hsm have secure keys, whose adapters fusecrypt-keystored holds: a virtual
# one, and a PKCS#11 token; that of guest is bound to an association secret. What opens keystored's state is a credential
# of systemd.
set -u
fail() { echo "FAILED: $*"; journalctl -b --no-pager -o short-monotonic | tail -n 60; exit 1; }
expect() { "${@:2}" > /tmp/output 2>&1 || { cat /tmp/output; fail "$1: ${*:2}"; }; }
refuse() { # STATUS TEXT COMMAND...
    local status=0
    "${@:3}" > /tmp/output 2>&1 || status=$?
    equal "status of ${*:3}: $(cat /tmp/output)" "$status" "$1"
    grep -qF "$2" /tmp/output || fail "${*:3} says: $(cat /tmp/output)"
}
equal() { [ "$2" = "$3" ] || fail "$1: got '$2', wanted '$3'"; }
wait_for() { for _ in $(seq 150); do "${@:2}" > /dev/null 2>&1 && return; sleep 0.1; done; fail "$1: never"; }
main_pid() { systemctl show --value -p MainPID fusecryptd.service; }
engine_pid() { systemctl show --value -p MainPID 'fusecrypt-engine@*.service'; }
as_daemon() { setpriv --reuid=fusecrypt --regid=fusecrypt --clear-groups "$@"; }
is_mounted() { mountpoint -q /mnt/data && [ "$(systemctl is-active mnt-data.mount)" = active ]; }
mapper=/run/fusecrypt/dev/mapper
. /root/keystore.sh

check_processes() {
    local daemon engine user
    daemon=$(main_pid)
    engine=$(engine_pid)
    equal "processes of the daemon's user" "$(pgrep -u fusecrypt | xargs)" "$daemon"
    equal "processes of the engine's user" "$(pgrep -u fusecrypt-engine | xargs)" "$engine"
    for pid in $daemon $engine; do
        user=$(id -u "$([ "$pid" = "$daemon" ] && echo fusecrypt || echo fusecrypt-engine)")
        equal "user of $pid" "$(awk '/^Uid:/ { print $2, $3, $4, $5 }' /proc/"$pid"/status)" "$user $user $user $user"
        for set in CapInh CapPrm CapEff CapBnd CapAmb; do
            equal "$set of $pid" "$(awk "/^$set:/ { print \$2 }" /proc/"$pid"/status)" 0000000000000000
        done
        equal "no new privileges of $pid" "$(awk '/^NoNewPrivs:/ { print $2 }' /proc/"$pid"/status)" 1
        equal "seccomp of $pid" "$(awk '/^Seccomp:/ { print $2 }' /proc/"$pid"/status)" 2
        [ "$(stat -c %t:%T /proc/"$pid"/root/dev/fuse)" != "$(stat -c %t:%T /dev/fuse)" ] || fail "pid $pid sees /dev/fuse"
    done
    # Nobody but the engine holds the connection.
    for other in $daemon $(pgrep -f fusecrypt-mountd); do
        ! ls -l /proc/"$other"/fd | grep -q /dev/fuse || fail "pid $other holds a descriptor of /dev/fuse"
    done
    fusecrypt status | grep -q 'sandbox: *seccomp, landlock, not dumpable, no capabilities' || fail "the engine's sandbox"
}

check_gone() {
    ! grep -q 'fuse.fusecrypt' /proc/self/mountinfo || fail "a mount is left"
    ! pgrep -u fusecrypt,fusecrypt-engine > /dev/null || fail "a process is left"
    equal "engines" "$(systemctl list-units --all --no-legend --plain 'fusecrypt-engine@*')" ""
    equal "places of engines" "$(ls /run/fusecrypt-engine)" ""
    equal "result" "$(systemctl show --value -p Result fusecryptd.service)" success
    equal "losses in the log" "$(journalctl -b --no-pager -p err -u fusecryptd -u fusecrypt-mountd -u 'fusecrypt-engine@*' -o cat)" ""
}

answer_question() {
    for _ in $(seq 100); do
        question=$(ls /run/systemd/ask-password/ask.* 2> /dev/null | head -n 1)
        [ -z "$question" ] || break
        sleep 0.1
    done
    [ -n "$question" ] || { echo "nobody asks"; return 1; }
    grep -q 'Message=Please enter passphrase for disk /srv/asked.img (asked):' "$question" || { cat "$question"; return 1; }
    sed -n 's/^Socket=//p' "$question" | { read -r socket; printf typed | /lib/systemd/systemd-reply-password 1 "$socket"; }
}

check_keystore() {
    local pid
    pid=$(systemctl show --value -p MainPID fusecrypt-keystored.service)
    equal "keystored's user" "$(ps -o user:32= -p "$pid")" fusecrypt-keystore
    equal "keystored's capabilities" "$(awk '/^Cap(Prm|Eff|Bnd):/ { print $2 }' /proc/"$pid"/status | sort -u)" 0000000000000000
    setpriv --reuid=fusecrypt --regid=fusecrypt --clear-groups ls /var/lib/fusecrypt/keystore > /dev/null 2>&1 \
        && fail "the daemon's user may look into the keystore"
    fusecrypt status sec | grep -q 'CCA-AESCIPHER by adapter 03.0039' || fail "the secure volume"
}

# A daemon that was taken over asks for a key, wrapped for the key pair that it made itself.
check_substitution() {
    local reply
    reply=$(as_daemon env HOME=/ FUSECRYPT_KEYSTORE=/run/fusecrypt/keystore FUSECRYPT_RUNTIME_DIR=/run/fusecrypt /opt/fusecrypt/bin/python3 -I -c '
import sys
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from fusecrypt.daemon.config import load_settings
from fusecrypt.daemon.keystored.client import Keystore
from fusecrypt.keystore.errors import PolicyError
from fusecrypt.keystore.tokens import KeyType
keystore = Keystore(load_settings())
key = keystore.generate(KeyType.CCA_AESDATA, key_bits=256, xts=True)
try:
    keystore.make_transport(key, X25519PrivateKey.generate().public_key().public_bytes_raw())
except PolicyError as error:
    print("refused:", error)
' 2>&1)
    equal "a daemon's own public key" "$reply" \
        "refused: MakeTransport: no engine of the service has this public key; only root may have a key wrapped for another"
    fusecrypt audit show | grep -q 'MakeTransport.*PolicyError' || fail "the refusal is not in the audit log: $(fusecrypt audit show | tail -n 3)"
    for path in /run/fusecrypt-engine /run/fusecrypt-engine/*; do
        ! as_daemon touch "$path/claim" 2> /dev/null || fail "the daemon can put itself into the engine's place: $path"
    done
    ! as_daemon python3 -c '
import glob, socket
socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(glob.glob("/run/fusecrypt-engine/*")[0] + "/claim")' 2> /dev/null \
        || fail "the daemon can ask an engine"
}

# keystored keeps nothing about engines: it may be restarted, or stopped, at any time.
check_keystored_restart() {
    for verb in restart stop; do
        expect "keystored" systemctl $verb fusecrypt-keystored.service
        expect "close" fusecrypt close sec
        expect "open after $verb" fusecrypt open sec
        check_keystore
    done
}

# Another session of the engine has another public key, and keystored takes it.
check_session() {
    local before
    before=$(dd if=$mapper/sec bs=64k count=1 2> /dev/null | sha256sum)
    expect "another session" fusecrypt adapter bump-session
    equal "content after the session's end" "$(dd if=$mapper/sec bs=64k count=1 iflag=direct 2> /dev/null | sha256sum)" "$before"
}

# An image on a file system of its own, which the generator makes the daemon wait for.
move_image() {
    truncate -s 80M /store.img
    expect store mkfs.ext4 -q /store.img
    mkdir /images
    expect "mount of the store" mount -o loop /store.img /images
    mv /srv/raw.img /images/raw.img
    umount /images
    sed -i 's|/srv/raw.img|/images/raw.img|' /etc/crypttab
    echo '/store.img /images ext4 loop 0 2' >> /etc/fstab
}

check_users_daemon() {
    [ "$(stat -c %a /dev/fuse)" = 666 ] || { echo "the user's unit is not tried: /dev/fuse is not everybody's"; return; }
    local as
    expect user useradd --create-home --uid 1000 alice
    mkdir -p /run/user/1000 /run/systemd/system/user@1000.service.d /run/systemd/system/user-runtime-dir@1000.service.d
    chown alice: /run/user/1000
    chmod 700 /run/user/1000
    # What logind and its PAM module would do.
    printf '[Service]\nEnvironment=XDG_RUNTIME_DIR=/run/user/1000\n' > /run/systemd/system/user@1000.service.d/test.conf
    printf '[Service]\nExecStart=\nExecStart=/bin/true\nExecStop=\n' > /run/systemd/system/user-runtime-dir@1000.service.d/test.conf
    expect reload systemctl daemon-reload
    expect "user's systemd" systemctl start user@1000.service
    as=(setpriv --reuid=alice --regid=alice --init-groups env HOME=/home/alice XDG_RUNTIME_DIR=/run/user/1000)
    expect "user's daemon" "${as[@]}" systemctl --user start fusecryptd.service
    expect "user's status" "${as[@]}" fusecrypt status
    "${as[@]}" systemctl --user kill --kill-whom=main --signal=KILL fusecryptd.service
    wait_for "the user's next daemon" "${as[@]}" fusecrypt status
    expect "user's daemon" "${as[@]}" systemctl --user stop fusecryptd.service
    ! grep -q /run/user/1000/fusecrypt /proc/self/mountinfo || fail "the user's mount is left"
}

first_boot() {
    expect users systemd-sysusers
    expect reload systemctl daemon-reload
    for unit in fusecryptd.service fusecrypt-mountd.service fusecrypt-keystored.service fusecrypt-engine@test.service fusecrypt-engine.socket; do
        expect "unit $unit" systemd-analyze verify --man=no "$unit"
    done
    systemctl cat fusecryptd.service | grep -qx 'After=srv.mount' || fail "the generator's drop-in"

    answer_question > /tmp/answer 2>&1 &
    expect start systemctl start fusecryptd.service
    wait %1 || fail "the question: $(cat /tmp/answer)"
    equal "status line" "$(systemctl show --value -p StatusText fusecryptd.service)" "3 of 3 volumes open"
    check_processes
    equal "owner of a volume" "$(stat -c '%U:%G %a' $mapper/data)" "root:disk 660"
    expect "the daemon has no right to the key" test "$(stat -c '%U %a' /etc/keys/data.key)" = "root 400"
    setpriv --reuid=fusecrypt --regid=fusecrypt --clear-groups cat /srv/data.img > /dev/null 2>&1 && fail "the daemon's user may read the image"

    # A shared mapping that is never synced, and still open at the end.
    python3 - << 'PYTHON' &
import mmap, os, time
fd = os.open("/run/fusecrypt/dev/mapper/raw", os.O_RDWR)
area = mmap.mmap(fd, 1 << 20)
area[70000:70006] = b"mapped"
open("/tmp/mapped", "w").close()
time.sleep(600)
PYTHON
    local holder=$!
    wait_for "the mapping" test -e /tmp/mapped
    expect "file system" mkfs.ext4 -q $mapper/data
    expect adapter fusecrypt adapter create 03.0039 --batch-mode
    make_secure_volume sec CCA-AESCIPHER 2176
    check_keystore
    check_substitution
    check_keystored_restart
    check_session
    seal_by_tpm
    seal_by_credential
    make_token
    make_guest
    check_credential
    check_guest
    expect stop systemctl stop fusecryptd.service
    kill $holder
    check_gone

    check_users_daemon
    sed -i '/^asked/d' /etc/crypttab
    move_image
    echo "$mapper/data /mnt/data ext4 loop,x-systemd.requires=fusecryptd.service 0 2" >> /etc/fstab
    expect enable systemctl enable fusecryptd.service fusecrypt-mountd.socket fusecrypt-keystored.socket
    exit 194
}

later_boot() {
    is_mounted || fail "/mnt/data is not mounted"
    local mounted reached
    mounted=$(systemctl show --value -p ActiveEnterTimestampMonotonic mnt-data.mount)
    reached=$(systemctl show --value -p ActiveEnterTimestampMonotonic multi-user.target)
    [ "$mounted" -gt 0 ] && [ "$mounted" -lt "$reached" ] || fail "mounted at $mounted, multi-user.target at $reached"
    systemctl show --value -p Before mnt-data.mount | grep -qw local-fs.target || fail "local-fs.target does not wait"
    equal "failed units" "$(systemctl --failed --no-legend --plain)" ""
    check_processes
    check_keystore
    check_sealing systemd-credential
    equal "status line" "$(systemctl show --value -p StatusText fusecryptd.service)" "5 of 5 volumes open"
    check_guest
    equal "what the token guards" "$(dd if=$mapper/hsm bs=12 count=1 2> /dev/null)" "of the token"
    equal "what a mapping wrote" "$(dd if=$mapper/raw bs=1 skip=70000 count=6 2> /dev/null)" mapped
}

second_boot() {
    later_boot
    # The daemon is killed: all of it comes back, and what was synced is there.
    echo synced > /mnt/data/synced
    sync
    local killed engine
    killed=$(main_pid)
    engine=$(engine_pid)
    kill -9 "$killed"
    wait_for "another daemon" eval '[ "$(main_pid)" != '"$killed"' ] && systemctl is-active fusecryptd.service'
    wait_for "mounted again" is_mounted
    equal "after a kill" "$(cat /mnt/data/synced)" synced
    equal "one mount" "$(grep -c fuse.fusecrypt /proc/self/mountinfo)" 1
    [ "$(engine_pid)" != "$engine" ] || fail "the killed daemon's engine is the next one's"
    check_processes
    check_substitution

    # The engine is killed: likewise.
    killed=$(main_pid)
    kill -9 "$(engine_pid)"
    wait_for "another daemon" eval '[ "$(main_pid)" != '"$killed"' ] && systemctl is-active fusecryptd.service'
    wait_for "mounted again" is_mounted
    equal "after the engine's death" "$(cat /mnt/data/synced)" synced
    check_processes
    equal "failed units" "$(systemctl --failed --no-legend --plain)" ""

    # It hangs: so does systemd's patience end.
    mkdir -p /run/systemd/system/fusecryptd.service.d
    printf '[Service]\nWatchdogSec=2\nRestart=always\n' > /run/systemd/system/fusecryptd.service.d/quick.conf
    expect reload systemctl daemon-reload
    expect restart systemctl restart fusecryptd.service
    wait_for "mounted again" is_mounted
    killed=$(main_pid)
    sleep 4
    equal "the daemon lives with a watchdog" "$(main_pid)" "$killed"
    kill -STOP "$killed"
    wait_for "the watchdog's restart" eval '[ "$(main_pid)" != '"$killed"' ] && systemctl is-active fusecryptd.service'
    wait_for "mounted again" is_mounted
    rm -r /run/systemd/system/fusecryptd.service.d
    expect reload systemctl daemon-reload

    # Restarted while files are being used: what was written is there, and nothing hangs.
    sleep 600 > /mnt/data/busy &
    echo unsynced > /mnt/data/unsynced
    expect restart systemctl restart fusecryptd.service
    kill %1
    expect unmount systemctl stop mnt-data.mount
    expect mount systemctl start mnt-data.mount
    equal "after a restart" "$(cat /mnt/data/unsynced)" unsynced
    expect "file system" fsck.ext4 -n -f $mapper/data

    # The helper is restarted, as by an upgrade: nobody notices.
    expect restart systemctl restart fusecrypt-mountd.service
    equal "still there" "$(cat /mnt/data/synced)" synced
    expect open fusecrypt close raw
    expect open fusecrypt open raw
    exit 194
}

last_boot() {
    later_boot
    equal "over the reboot" "$(cat /mnt/data/unsynced)" unsynced
    check_unbound
    expect stop systemctl stop fusecryptd.service
    ! mountpoint -q /mnt/data || fail "/mnt/data is still mounted"
    check_gone
    echo "boots: 3, all well"
}

case $BOOT in
    1) first_boot ;;
    2) second_boot ;;
    *) last_boot ;;
esac
