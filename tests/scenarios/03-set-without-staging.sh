# Scenario 3: somebody set the new master key, and nobody had staged anything.
# The user sees: keys are valid under the OLD master key, with a warning; reencipher finds out what to
# do, and does it in place. In EP11 mode there is no OLD master key: keys are lost at once, SET says so
# before, and a volume comes back with a copy of its key that was re-enciphered.
. "$(dirname "$0")/place.sh"
adapter 03.0039 mk1
head -c 64 /dev/urandom > clear.key
fusecrypt zkey generate --name a --xts --clearkey clear.key
fusecrypt zkey generate file.key --xts --clearkey clear.key

set_master_key 03.0039 mk2
shows 'Enciphered with      : OLD master key' fusecrypt zkey validate
says 'currently enciphered with the OLD master key' '1 keys are valid, 0 keys are invalid'
shows '1 keys re-enciphered' fusecrypt zkey reencipher
shows 'Enciphered with      : CURRENT master key' fusecrypt zkey validate
fusecrypt zkey reencipher file.key
shows 'CURRENT master key' fusecrypt zkey validate file.key
refused 1 fusecrypt zkey reencipher --from-old file.key
says 'is enciphered with the CURRENT master key already'

ep11_adapter 04.0039 wk1
fusecrypt zkey generate --xts --name ep11 --clearkey clear.key --key-type EP11-AES --apqns 04.0039
format volume "$ZKEY_REPOSITORY/ep11.skey"
fusecrypt zkey-cryptsetup setvp --key-file one volume
fusecrypt open --key-file one volume a
write_data a
fusecrypt close a
load_wk 04.0039 wk2
shows '1 keys re-enciphered' fusecrypt zkey reencipher --name ep11 --to-new --staged
fusecrypt adapter master-key set 04.0039
refused 1 fusecrypt zkey validate --name ep11
shows '1 keys re-enciphered' fusecrypt zkey reencipher --name ep11 --complete
shows 'Enciphered with      : CURRENT master key' fusecrypt zkey validate --name ep11
refused 6 fusecrypt open --key-file one volume a # nobody staged the volume
fusecrypt zkey-cryptsetup setkey --volume-key-file "$ZKEY_REPOSITORY/ep11.skey" \
    --key-file one --key-file two volume
open_and_compare volume two
