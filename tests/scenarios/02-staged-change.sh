# Scenario 2: the master key is changed as the books say: load NEW, stage, set, complete.
# The user sees: after staging everything still works; completing too early is refused and changes
# nothing; afterwards all keys are under the CURRENT master key, and still the same keys.
. "$(dirname "$0")/place.sh"
adapter 03.0039 mk1
head -c 64 /dev/urandom > clear.key
for name in a b; do
    fusecrypt zkey generate --name $name --xts --clearkey clear.key --key-type CCA-AESCIPHER
done
fusecrypt zkey generate file.key --xts --clearkey clear.key

load_new 03.0039 mk2
shows '2 keys re-enciphered, 0 keys skipped, 0 keys failed' fusecrypt zkey reencipher --to-new --staged
fusecrypt zkey reencipher --to-new --output file.new file.key
shows '(re-enciphering pending)' fusecrypt zkey validate
says '2 keys are valid, 0 keys are invalid'

refused 1 fusecrypt zkey reencipher --complete
says 'the NEW master key may yet have to be set'
refused 1 fusecrypt zkey validate file.new # not yet

fusecrypt adapter master-key set 03.0039
shows 'OLD master key' fusecrypt zkey validate # usable all the time
shows '2 keys re-enciphered, 0 keys skipped, 0 keys failed' fusecrypt zkey reencipher --complete
shows '2 keys are valid, 0 keys are invalid, 0 warnings' fusecrypt zkey validate
shows 'CURRENT master key' fusecrypt zkey validate file.new
