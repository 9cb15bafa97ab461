# Scenario 8: adapters that are away, of another kind, too old, or have other master keys.
# The user sees: each reason by name before anything is made; another adapter with the same master
# key takes over; a card in checkstop or taken away is not used, and one that is back is.
. "$(dirname "$0")/place.sh"
refused 6 fusecrypt zkey generate key # no adapter at all
adapter 03.0039 mk1
adapter 04.0039 mk1
adapter 05.0039 mk2
fusecrypt adapter create --mode accel 06.0039
fusecrypt adapter create --card-type CEX5 --no-master-key 07.0039
set_master_key 07.0039 mk1
fusecrypt adapter create --no-master-key 08.0039

refused 1 fusecrypt adapter check
says 'different CURRENT master keys'
shows '05.0039' fusecrypt lszcrypt -V
both='--xts --name a --apqns 03.0039,04.0039'
fusecrypt zkey generate $both
fails() { # fails TEXT APQN…: no key is made for these adapters, and the text says why
    text=$1
    shift
    status=0
    fusecrypt zkey generate --xts --name none --apqns "$@" > said 2>&1 || status=$?
    cat said
    [ $status != 0 ] || fail "a key was made for $*"
    says "$text"
    [ ! -e "$ZKEY_REPOSITORY/none.skey" ] || fail 'a key was left'
}
fails 'need one master key' 03.0039,05.0039
fails '06.0039' 03.0039,06.0039
fails '08.0039 is online with CURRENT -' 03.0039,08.0039
fails '09.0039: does not exist' 09.0039
fails 'CEX5' 03.0039,07.0039 --key-type CCA-AESCIPHER
fails 'EP11-AES' 03.0039,04.0039 --key-type EP11-AES

# Failover: the first goes, the second does the work; both go, nothing works; one comes back.
fusecrypt chzcrypt -d 03
shows '1 keys are valid' fusecrypt zkey validate --apqns 03.0039
fusecrypt chzcrypt --config-off 04
fusecrypt chzcrypt -d 07
refused 1 fusecrypt zkey validate
fusecrypt chzcrypt --config-on 04
fusecrypt chzcrypt -e 04
shows '1 keys are valid' fusecrypt zkey validate
fusecrypt adapter checkstop 04
refused 1 fusecrypt zkey validate
fusecrypt adapter recover 04
shows '1 keys are valid' fusecrypt zkey validate

# NEW registers that differ.
fusecrypt chzcrypt -e 03
load_new 03.0039 mk3
load_new 04.0039 mk4
shows 'different NEW master keys' fusecrypt zkey validate
