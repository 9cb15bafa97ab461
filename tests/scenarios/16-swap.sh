# Scenario 16: swap, or /tmp, with a random protected key that nobody ever knows.
# The user sees: the crypttab line of IBM's books works, with the key that is new at each start; swap
# itself (`swap` among the options, which needs a block device) is refused with the reason; the key is
# lost when the machine's session key changes, and is said to be; a header never gets such a key.
. "$(dirname "$0")/place.sh"
adapter 03.0039 mk1
truncate -s 1M disk99
sysfs=/sys/devices/virtual/misc/pkey/protkey/protkey_aes_256_xts
echo "swap_disk $PWD/disk99 $sysfs swap,cipher=paes-xts-plain64,size=1280" > "$FUSECRYPT_CRYPTTAB"
status=0
fusecrypt crypttab check "$FUSECRYPT_CRYPTTAB" > said 2>&1 || status=$?
cat said
[ $status != 0 ]
says 'swap on a FUSE file can deadlock the machine'

echo "b $PWD/disk99 $sysfs plain,cipher=paes-xts-plain64,size=1280,sector-size=4096" \
    > "$FUSECRYPT_CRYPTTAB"
fusecrypt open b
head -c 65536 /dev/urandom > data
dd if=data of="$device/b" bs=64k conv=notrunc,fsync status=none
head -c 65536 "$device/b" | cmp - data
cp disk99 first
fusecrypt close b
fusecrypt open b # as after a new start: another key, so the data are gone
if head -c 65536 "$device/b" | cmp -s - data; then fail 'the old key is back'; fi
cmp first disk99 # which is not the file's fault

fusecrypt adapter bump-session # IPL, migration, suspend: the adapter does not help
if dd if="$device/b" of=read bs=4k count=1 iflag=direct 2> said; then fail 'the key is not lost'; fi
cat said
says 'Input/output error'
shows 'lost' fusecrypt status b
fusecrypt close b
fusecrypt open b # a new key
fusecrypt close b

truncate -s 8M volume
printf one > one
status=0
fusecrypt luksFormat -q --cipher paes-xts-plain64 --key-size 1280 --volume-key-file $sysfs \
    volume one > said 2>&1 || status=$?
cat said
[ $status != 0 ] || fail 'a header has a key that is lost at the next start'
