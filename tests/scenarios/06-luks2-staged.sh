# Scenario 6: a LUKS2 volume's key is staged, cancelled, staged again, completed too early and too late.
# The user sees: too early is refused; too late (two master keys on) it asks, and re-enciphers once more.
. "$(dirname "$0")/place.sh"
adapter 03.0039 mk1
head -c 64 /dev/urandom > clear.key
fusecrypt zkey generate secure.key --xts --clearkey clear.key
format volume secure.key
fusecrypt open --key-file one volume a
write_data a
fusecrypt close a

refused 1 fusecrypt zkey-cryptsetup reencipher --complete --key-file one volume
says 'not pending'
load_new 03.0039 mk2
shows 'Staged volume key re-enciphering is initiated' \
    fusecrypt zkey-cryptsetup reencipher --staged --key-file one --key-file two volume
shows 'Volume key re-enciphering is pending' \
    fusecrypt zkey-cryptsetup validate --key-file one volume
cryptsetup luksDump volume > dump # the real one sees unbound keyslots and tokens
grep -q paes-reencipher dump
grep -q unbound dump
open_and_compare volume two # meanwhile

refused 6 fusecrypt zkey-cryptsetup reencipher --complete --key-file one volume
says 'may yet have to be set'
# Cancel and start again: no is no.
refused 2 fusecrypt zkey-cryptsetup reencipher --staged --key-file one --key-file two volume
cryptsetup luksDump volume | cmp - dump
fusecrypt zkey-cryptsetup reencipher --staged -q --key-file one --key-file two volume

fusecrypt adapter master-key set 03.0039
set_master_key 03.0039 mk3
refused 2 fusecrypt zkey-cryptsetup reencipher --complete --key-file one --key-file two volume
says 'OLD master key'
answer 'yes\nyes\n' fusecrypt zkey-cryptsetup reencipher --complete --key-file one --key-file two volume
shows 'CURRENT master key' fusecrypt zkey-cryptsetup validate --key-file two volume
open_and_compare volume one
cryptsetup luksDump volume > said
says paes-verification-pattern
lacks paes-reencipher unbound
