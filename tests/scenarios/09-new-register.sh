# Scenario 9: the NEW register is loaded in part only, by one keeper, or not committed in EP11 mode.
# The user sees: nothing is re-enciphered to half a master key; it cannot be set; clear-new begins anew.
. "$(dirname "$0")/place.sh"
adapter 03.0039 mk1
fusecrypt zkey generate --xts --name a
refused 6 fusecrypt adapter master-key set 03.0039 # NEW is empty
head -c 32 /dev/urandom > mk2.first
head -c 31 /dev/urandom > short
refused 6 fusecrypt adapter master-key load --part last 03.0039 mk2.first # there is no first
refused 1 fusecrypt adapter master-key load --part first 03.0039 short
fusecrypt adapter master-key load --part first 03.0039 mk2.first
shows 'partial' fusecrypt adapter master-key query 03.0039
shows 'partially loaded' fusecrypt zkey validate
refused 1 fusecrypt zkey reencipher --to-new
refused 6 fusecrypt adapter master-key set 03.0039
fusecrypt adapter master-key clear-new 03.0039
shows 'AES NEW:     empty' fusecrypt adapter master-key query 03.0039

load_new 03.0039 mk2
shows 'AES NEW:     full' fusecrypt adapter master-key query 03.0039
shows '1 keys re-enciphered' fusecrypt zkey reencipher --to-new
fusecrypt adapter master-key set 03.0039
shows '1 keys re-enciphered' fusecrypt zkey reencipher --complete

ep11_adapter 04.0039 wk1
fusecrypt zkey generate --xts --name ep11 --key-type EP11-AES --apqns 04.0039
load_new 04.0039 wk2
shows 'uncommitted' fusecrypt zkey validate --name ep11
refused 1 fusecrypt zkey reencipher --name ep11 --to-new
refused 6 fusecrypt adapter master-key set 04.0039
fusecrypt adapter master-key commit 04.0039
shows '1 keys re-enciphered' fusecrypt zkey reencipher --name ep11 --to-new
fusecrypt adapter master-key set 04.0039
shows '1 keys re-enciphered' fusecrypt zkey reencipher --name ep11 --complete
