# What every scenario begins with; it is read, not run. Each scenario has directories of its own, so
# that it can be tried on any machine: `sh tests/scenarios/01-key-types.sh` leaves nothing behind.
# With SCENARIO_DIR, and fusecrypt's variables set to match, whoever set them cleans up.

if [ -z "${SCENARIO_DIR:-}" ]; then
    SCENARIO_DIR=$(mktemp -d)
    export FUSECRYPT_RUNTIME_DIR="$SCENARIO_DIR/run" FUSECRYPT_STATE_DIR="$SCENARIO_DIR/state"
    export FUSECRYPT_CRYPTTAB="$SCENARIO_DIR/crypttab" ZKEY_REPOSITORY="$SCENARIO_DIR/zkey"
    mkdir -m 700 "$FUSECRYPT_RUNTIME_DIR" "$FUSECRYPT_STATE_DIR"
    : > "$FUSECRYPT_CRYPTTAB"
    leave() { # the daemon, if one was started, takes its mount away and ends
        cd /
        pid=$(fusecrypt status --json | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')
        if [ -n "$pid" ]; then kill "$pid"; fi
        while [ -n "$pid" ] && kill -0 "$pid"; do sleep 0.1; done
        rm -rf "$SCENARIO_DIR"
    }
    trap 'leave 2> /dev/null || true' EXIT
fi
cd "$SCENARIO_DIR"
umask 077
device="$FUSECRYPT_RUNTIME_DIR/dev/mapper"

fail() {
    echo "FAILED: $*"
    exit 99
}

# refused CODE COMMAND…: the command ends with that exit code; what it says goes to `said`.
refused() {
    wanted=$1
    shift
    status=0
    "$@" > said 2>&1 < /dev/null || status=$?
    cat said
    [ "$status" = "$wanted" ] || fail "$*: exit code $status, not $wanted"
}

# shows TEXT COMMAND…: the command succeeds, and the text is in what it says.
shows() {
    text=$1
    shift
    status=0
    "$@" > said 2>&1 || status=$?
    cat said
    [ "$status" = 0 ] || fail "$*: exit code $status"
    says "$text"
}

# says TEXT…: the last command said all this.
says() {
    for text; do
        grep -q -F -e "$text" said || fail "nobody said: $text"
    done
}

# lacks TEXT…: the last command said none of this.
lacks() {
    for text; do
        if grep -q -F -e "$text" said; then fail "somebody said: $text"; fi
    done
}

# answer WORDS COMMAND…: the words, one a line, are typed; the exit code is the command's.
answer() {
    words=$1
    shift
    printf "$words" | "$@"
}

# load_new APQN NAME: the NEW master key, from the parts of two keepers, which are in files.
load_new() {
    for part in first last; do
        [ -e "$2.$part" ] || head -c 32 /dev/urandom > "$2.$part"
        fusecrypt adapter master-key load --part $part "$1" "$2.$part"
    done
}

# set_master_key APQN NAME: load all parts, and make the NEW master key the CURRENT one.
set_master_key() {
    load_new "$1" "$2"
    fusecrypt adapter master-key set "$1"
}

# load_wk APQN NAME: the same for an adapter in EP11 mode, where NEW has to be committed.
load_wk() {
    load_new "$1" "$2"
    fusecrypt adapter master-key commit "$1"
}

# ep11_adapter APQN NAME: one in EP11 mode with the wrapping key NAME.
ep11_adapter() {
    fusecrypt adapter create --mode ep11 --no-master-key "$1"
    fusecrypt adapter leave-imprint "$1"
    load_wk "$1" "$2"
    fusecrypt adapter master-key set "$1"
}

# adapter APQN NAME: a virtual adapter with the master key NAME.
adapter() {
    fusecrypt adapter create --no-master-key "$1"
    set_master_key "$1" "$2"
}

# format IMAGE SKEY: a LUKS2 volume of the real cryptsetup with a secure key and two passphrases.
format() {
    [ -e one ] || printf 'first passphrase' > one
    [ -e two ] || printf 'second passphrase' > two
    area=5m offset=12288 size=8M
    if [ "$(wc -c < "$2")" -gt 272 ]; then area=12m offset=32768 size=18M; fi # an EP11-AES key
    truncate -s $size "$1"
    cryptsetup luksFormat -q --type luks2 --cipher paes-xts-plain64 --volume-key-file "$2" \
        --key-size $(($(wc -c < "$2") * 8)) --key-file one --offset $offset \
        --luks2-metadata-size 16k --luks2-keyslots-size $area \
        --pbkdf argon2i --pbkdf-memory 32 --pbkdf-force-iterations 4 "$1"
    cryptsetup luksAddKey -q --key-file one --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "$1" two
}

# write_data NAME, same_data NAME: 64 KiB that are only once on this earth, on an open volume.
write_data() {
    [ -e data ] || head -c 65536 /dev/urandom > data
    dd if=data of="$device/$1" bs=64k conv=notrunc,fsync status=none
}

same_data() {
    # Not from the page cache, which needs no key.
    dd if="$device/$1" bs=64k count=1 iflag=direct,fullblock status=none | cmp - data || fail "$1 has other data"
}

# open_and_compare IMAGE PASSPHRASE_FILE: what was written is there.
open_and_compare() {
    fusecrypt open --key-file "$2" "$1" a
    same_data a
    fusecrypt close a
}
