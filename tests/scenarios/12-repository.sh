# Scenario 12: a repository that was tampered with, is half there, is locked, or is open to others.
# The user sees: which key and what; other keys are still listed; a key is locked by who changes it.
. "$(dirname "$0")/place.sh"
adapter 03.0039 mk1
mkdir -m 750 "$ZKEY_REPOSITORY"
for name in a b c; do
    fusecrypt zkey generate --xts --name $name
done
[ "$(stat -c %a "$ZKEY_REPOSITORY/a.skey")" = 640 ] # as the directory, never for others
sed -i 's/^key-type=.*/key-type=EP11-AES/' "$ZKEY_REPOSITORY/a.info"
refused 7 fusecrypt zkey export --name a out # the hash over all properties
says 'altered'
rm "$ZKEY_REPOSITORY/b.skey"
refused 7 fusecrypt zkey export --name b out
says 'inconsistent'
refused 7 fusecrypt zkey list # but the others are there
says 'Key                          : c' 'a.info: altered' "key 'b' is in an inconsistent state"
refused 1 fusecrypt zkey validate
says '1 keys are valid, 2 keys are invalid'
refused 10 fusecrypt master-key plan
says '1 done, 2 unknown'
set_master_key 03.0039 mk2
refused 1 fusecrypt zkey reencipher
says '1 keys re-enciphered, 0 keys skipped, 2 keys failed'

flock "$ZKEY_REPOSITORY/.lock" sleep 1 & # zkey holds this lock
sleep 0.3
before=$(date +%s%N)
fusecrypt zkey change --name c --description waited
[ $(($(date +%s%N) - before)) -gt 500000000 ] || fail 'the lock was not waited for'
wait

refused 1 fusecrypt zkey generate --xts --name ../x
fusecrypt zkey remove --name b --force
chmod 777 "$ZKEY_REPOSITORY"
refused 4 fusecrypt zkey list
says 'lets others write to it'
