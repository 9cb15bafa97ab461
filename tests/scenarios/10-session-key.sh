# Scenario 10: the machine's session key changes (IPL, migration), and the adapter goes away meanwhile.
# The user sees: nothing, while I/O runs and an adapter is there. With the adapter away an open volume
# goes on until its key is void; then I/O waits, fails with EIO, and is well again when the adapter is
# back. What is closed does not open meanwhile, and the reason is said.
. "$(dirname "$0")/place.sh"
adapter 03.0039 mk1
head -c 64 /dev/urandom > clear.key
fusecrypt zkey generate secure.key --xts --clearkey clear.key
format volume secure.key
fusecrypt open --key-file one volume a
write_data a

{
    for round in 1 2 3 4 5 6 7 8; do
        dd if=data of="$device/a" bs=4k conv=notrunc,fsync status=none
        same_data a
    done
} &
for bump in 1 2 3; do
    fusecrypt adapter bump-session
done
wait $!
same_data a
fusecrypt adapter bump-session
same_data a # derived once more
shows 'derived' fusecrypt status a

fusecrypt chzcrypt -d 03
same_data a # its key is there
fusecrypt adapter bump-session
status=0
dd if="$device/a" of=read bs=4k count=1 iflag=direct 2> said || status=$?
cat said
[ $status != 0 ] || fail 'it can be read without a key'
says 'Input/output error'
shows 'unavailable' fusecrypt status a
truncate -s 1M other
refused 6 fusecrypt open --type plain --cipher paes-xts-plain64 --key-size 1024 \
    --key-file secure.key other b

fusecrypt chzcrypt -e 03
tries=0
until dd if="$device/a" of=read bs=64k count=1 iflag=direct,fullblock 2> said; do
    tries=$((tries + 1))
    [ $tries -lt 20 ] || fail 'it does not come back'
    sleep 0.5
done
cmp read data
write_data a
fusecrypt close a
open_and_compare volume two
