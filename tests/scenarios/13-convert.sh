# Scenario 13: a CCA-AESDATA key becomes a CCA-AESCIPHER key, and the volume gets it.
# The user sees: a question, then what to do with the volume; the data are what they were; the key may
# not be exported, unless asked for.
. "$(dirname "$0")/place.sh"
adapter 03.0039 mk1
head -c 64 /dev/urandom > clear.key
fusecrypt zkey generate --xts --name disk --clearkey clear.key --volumes "$PWD/volume:disk"
format volume "$ZKEY_REPOSITORY/disk.skey"
fusecrypt zkey-cryptsetup setvp --key-file one volume
fusecrypt open --key-file one volume a
write_data a
fusecrypt close a

refused 2 fusecrypt zkey convert --name disk --key-type CCA-AESCIPHER
says 'irreversible'
answer 'y\n' fusecrypt zkey convert --name disk --key-type CCA-AESCIPHER
shows 'Key type             : CCA-AESCIPHER' fusecrypt zkey validate
[ "$(wc -c < "$ZKEY_REPOSITORY/disk.skey")" = 272 ]
fusecrypt zkey-cryptsetup setkey --volume-key-file "$ZKEY_REPOSITORY/disk.skey" \
    --key-file one --key-file two volume
shows 'Key type:              CCA-AESCIPHER' fusecrypt zkey-cryptsetup validate --key-file two volume
open_and_compare volume two
cryptsetup luksDump volume > said
says '2176 bits'

# A key that may be exported is asked about when it comes in.
fusecrypt zkey generate open.key --xts --key-type CCA-AESCIPHER --exportable
refused 2 fusecrypt zkey import --name imported open.key
says 'might not be secure'
answer 'y\n' fusecrypt zkey import --name imported open.key
