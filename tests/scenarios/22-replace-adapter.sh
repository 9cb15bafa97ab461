# Chapter: replace an adapter, by one with the same master key, and by one with another.
# The user sees: with the same master key there is nothing to do but to load it, from its keepers'
# parts; with another one, that becomes NEW on the adapter that goes, everything is re-enciphered,
# and is complete as soon as the adapter that comes has it.
. "$(dirname "$0")/place.sh"
adapter 03.0039 mk1
head -c 64 /dev/urandom > clear.key
fusecrypt zkey generate --xts --name disk --clearkey clear.key --volumes "$PWD/volume:a"
format volume "$ZKEY_REPOSITORY/disk.skey"
fusecrypt open --key-file one volume a
write_data a
fusecrypt close a

# The same master key.
adapter 04.0007 mk1
fusecrypt adapter check
fusecrypt chzcrypt -d 03
open_and_compare volume two
fusecrypt adapter remove -q 03.0039
open_and_compare volume one

# Another.
adapter 05.0007 mk2
load_new 04.0007 mk2
fusecrypt master-key stage --key-file one --key-file two
fusecrypt master-key complete --key-file one --key-file two
fusecrypt adapter remove -q 04.0007
open_and_compare volume two
shows '1 keys are valid' fusecrypt zkey validate
fusecrypt adapter remove -q 05.0007
refused 6 fusecrypt open --key-file two volume a
