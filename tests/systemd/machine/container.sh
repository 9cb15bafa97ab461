#!/bin/bash
# container.sh FILES SCRIPT [SECONDS]: boot systemd in a container and run SCRIPT there as root.
#   FILES are laid over the root file system before the boot. SCRIPT runs after multi-user.target; what it says is
#   printed. Status 194 reboots and runs it again, with BOOT=2, 3, ...; any other is ours. 124: time is up;
#   125: the machine ended without the script. DEVICES names devices for the container.
# Needs root, /dev/fuse, systemd-nspawn. The container shares the kernel and its page cache, and has no udev.
set -u
here=$(cd "$(dirname "$0")" && pwd)
cache=${FUSECRYPT_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fusecrypt-lab-systemd}
files=$(realpath "$1") script=$(realpath "$2") seconds=${3:-120}

mkdir -p "$cache"
( flock 9; bash "$here/rootfs.sh" "$cache" ) 9> "$cache/lock" >&2 || exit 125
work=$(mktemp -d "${TMPDIR:-/tmp}/fusecrypt-container.XXXXXX")
mkdir -p "$work"/{upper,work,root,out}
: > "$work/out/said"

# With cgroups of its own, so that everything in it can be found and ended.
groups=
for top in /sys/fs/cgroup/unified /sys/fs/cgroup/systemd /sys/fs/cgroup; do
    [ ! -f "$top/cgroup.procs" ] || { mkdir -p "$top/fusecrypt-test.$$" && groups="$groups $top/fusecrypt-test.$$"; }
done
clean_up() {
    for group in $groups; do
        for _ in $(seq 50); do
            [ -d "$group" ] || break
            find "$group" -name cgroup.procs -exec cat {} + 2> /dev/null | xargs -r kill -9 2> /dev/null
            find "$group" -depth -type d -exec rmdir {} \; 2> /dev/null
            sleep 0.05
        done
    done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

cat > "$work/inside" << 'INSIDE'
set -eu
# Where the directory for temporary files is itself an overlay, it cannot carry another: then a copy.
mount -t overlay fusecrypt-test -o "lowerdir=$cache/root,upperdir=$work/upper,workdir=$work/work" "$work/root" ||
    cp -a "$cache/root/." "$work/root/"
cp -a "$files/." "$work/root/"
install -m 755 "$script" "$work/root/test-script"
cat > "$work/root/run-test" << 'RUN'
#!/bin/bash
export BOOT=$(($(cat /boots 2> /dev/null || echo 0) + 1)) HOME=/root LC_ALL=C.UTF-8
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
echo "$BOOT" > /boots
cd /root
/test-script < /dev/null >> /test-out/said 2>&1
status=$?
if [ "$status" = 194 ]; then : > /test-out/again; exec systemctl reboot; fi
echo "$status" > /test-out/status
exec systemctl poweroff
RUN
chmod 755 "$work/root/run-test"
options=(--quiet --register=no --keep-unit --capability=all "--machine=fusecrypt-test$$" --directory "$work/root")
# Beside what it allows by itself: what the service's own filter allows.
options+=("--system-call-filter=@keyring bpf @memlock memfd_secret landlock_create_ruleset landlock_add_rule landlock_restrict_self" --bind="$work/out:/test-out" --bind=/dev/fuse)
for device in ${DEVICES:-}; do options+=("--bind=$device"); done
while :; do
    # It wants a terminal.
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 script -qec "systemd-nspawn $(printf '%q ' "${options[@]}") \
        /lib/systemd/systemd --show-status=0 --log-target=console" /dev/null < /dev/null >> "$work/console" 2>&1 || true
    [ -e "$work/out/again" ] || break
    rm "$work/out/again"
done
INSIDE
export cache work files script
(
    for group in $groups; do echo "$BASHPID" > "$group/cgroup.procs"; done
    exec timeout -k 1 "$seconds" unshare --mount --propagation slave bash "$work/inside"
)
ended=$?
cat "$work/out/said"
[ "$ended" != 124 ] || { echo "container.sh: $seconds seconds are over" >&2; tail -n 40 "$work/console" >&2; exit 124; }
[ -s "$work/out/status" ] || { echo "container.sh: no verdict; the console:" >&2; tail -n 40 "$work/console" >&2; exit 125; }
exit "$(cat "$work/out/status")"
