# Scenario 5: keys are put under the NEW master key in place, before it is set.
# The user sees: they cannot be used until it is; then all is done.
. "$(dirname "$0")/place.sh"
adapter 03.0039 mk1
head -c 64 /dev/urandom > clear.key
fusecrypt zkey generate --name a --xts --clearkey clear.key
format volume "$ZKEY_REPOSITORY/a.skey"
fusecrypt open --key-file one volume a
write_data a

load_new 03.0039 mk2
shows '1 keys re-enciphered' fusecrypt zkey reencipher --to-new --in-place
fusecrypt zkey-cryptsetup reencipher --to-new --in-place --key-file one --key-file two volume
refused 1 fusecrypt zkey validate
says '0 keys are valid, 1 keys are invalid'
same_data a # what is open goes on
fusecrypt close a
refused 6 fusecrypt open --key-file one volume a

fusecrypt adapter master-key set 03.0039
shows '1 keys are valid, 0 keys are invalid, 0 warnings' fusecrypt zkey validate
open_and_compare volume two
