# Chapter: plain mode, the key file's secure key being all there is.
# The user sees: the commands and the crypttab line that zkey writes down; the file is re-enciphered
# while the volume is open; a short --key-size is refused.
. "$(dirname "$0")/place.sh"
adapter 03.0039 mk1
head -c 64 /dev/urandom > clear.key
truncate -s 1M volume
fusecrypt zkey generate --xts --name plain --clearkey clear.key --volume-type plain \
    --volumes "$PWD/volume:a" --sector-size 4096
fusecrypt zkey cryptsetup > said
cat said
says 'plainOpen' '--key-size 1024 --cipher paes-xts-plain64 --sector-size 4096'
fusecrypt zkey cryptsetup --run
write_data a
set_master_key 03.0039 mk2
fusecrypt zkey reencipher
same_data a
fusecrypt close a
set_master_key 03.0039 mk3 # mk1 is gone
fusecrypt zkey crypttab | tee "$FUSECRYPT_CRYPTTAB"
fusecrypt open a
same_data a
fusecrypt close a
refused 8 fusecrypt open --type plain --cipher paes-xts-plain64 --key-size 512 \
    --key-file "$ZKEY_REPOSITORY/plain.skey" volume a
