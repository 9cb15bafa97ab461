# Scenario 7: the header's verification pattern keeps a wrong key out; without one there is a question.
# The user sees: a key of another effective key is refused whatever he says; a volume without the
# token is called unidentifiable, and a key that cannot be compared is put in only after `yes`.
. "$(dirname "$0")/place.sh"
adapter 03.0039 mk1
head -c 64 /dev/urandom > clear.key
fusecrypt zkey generate secure.key --xts --clearkey clear.key
fusecrypt zkey generate wrong.key --xts
format volume secure.key
fusecrypt open --key-file one volume a
write_data a
fusecrypt close a

shows 'cannot be identified because the header has no verification pattern' fusecrypt zkey-cryptsetup validate --key-file one volume
fusecrypt zkey-cryptsetup setvp --key-file two volume
cryptsetup token export --token-id 0 volume
refused 7 fusecrypt zkey-cryptsetup setkey --volume-key-file wrong.key -q --key-file one --key-file two volume
says 'do not match'
shows 'already' fusecrypt zkey-cryptsetup setkey --volume-key-file secure.key --key-file one volume

# Without the token, and the old key's master key gone.
cryptsetup token remove --token-id 0 volume
set_master_key 03.0039 mk2
set_master_key 03.0039 mk3
fusecrypt zkey generate again.key --xts --clearkey clear.key
set -- fusecrypt zkey-cryptsetup setkey --volume-key-file again.key --key-file one --key-file two volume
refused 2 "$@"
says 'lose all data'
answer 'yes\n' "$@"
open_and_compare volume two
