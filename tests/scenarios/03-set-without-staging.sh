# Scenario 3: somebody set the new master key, and nobody had staged anything.
# The user sees: keys are valid under the OLD master key, with a warning; reencipher finds out what to
# do, and does it in place. (The same with EP11, which has no OLD master key, is not here: see README.)
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
