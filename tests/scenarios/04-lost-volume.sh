# Scenario 4: two master keys later, a volume that nobody re-enciphered is lost; and it comes back.
# The user sees: the volume does not open and says why; with the repository's copy of its key, which
# went along, `setkey` brings it back, with all its passphrases.
. "$(dirname "$0")/place.sh"
adapter 03.0039 mk1
head -c 64 /dev/urandom > clear.key
fusecrypt zkey generate --name archive --xts --clearkey clear.key
format volume "$ZKEY_REPOSITORY/archive.skey"
fusecrypt zkey-cryptsetup setvp --key-file one volume
fusecrypt open --key-file one volume a
write_data a
fusecrypt close a

for name in mk2 mk3; do
    set_master_key 03.0039 $name
    fusecrypt zkey reencipher
done
refused 6 fusecrypt open --key-file one volume a
refused 1 fusecrypt zkey-cryptsetup validate --key-file one volume
says 'The secure volume key is not valid'

refused 8 fusecrypt zkey-cryptsetup setkey --volume-key-file "$ZKEY_REPOSITORY/archive.skey" \
    --key-file one volume # the second passphrase would be lost
fusecrypt zkey-cryptsetup setkey --volume-key-file "$ZKEY_REPOSITORY/archive.skey" \
    --key-file one --key-file two volume
shows 'Status:                Valid' fusecrypt zkey-cryptsetup validate --key-file two volume
open_and_compare volume two
cryptsetup luksDump volume
