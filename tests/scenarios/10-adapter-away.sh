# Scenario 10: the adapter goes offline while a volume is open.
# The user sees: an open volume goes on, since its key is in the engine; one that is closed does not open,
# with the reason; it does again when the adapter is back. (That the session key of the machine
# changes meanwhile cannot be played yet: see README.)
. "$(dirname "$0")/place.sh"
adapter 03.0039 mk1
head -c 64 /dev/urandom > clear.key
fusecrypt zkey generate secure.key --xts --clearkey clear.key
format volume secure.key
fusecrypt open --key-file one volume a
write_data a
fusecrypt chzcrypt -d 03
same_data a
write_data a
shows 'paes-xts-plain64' fusecrypt status a
fusecrypt close a
refused 6 fusecrypt open --key-file one volume a
fusecrypt chzcrypt -e 03
open_and_compare volume one
