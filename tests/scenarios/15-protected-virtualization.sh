# Scenario 15: a secure guest. Its owner gives it a secret, an EP11 adapter is bound to it and associated
# with the secret, and the keys that are made there open with that secret alone. IBM Z's ultravisor is
# played by keystored: see README.
# The user sees: a volume that opens; that does not once the adapter is unbound, or associated with
# another secret, and both sessions are named; a boot that ends it all, and the request that brings it
# back. Keys that are references to such secrets are listed for what they are.
. "$(dirname "$0")/place.sh"
export FUSECRYPT_BOOT_ID=00000000-0000-4000-8000-000000000001
ep11_adapter 05.0011 wk1
shows '05.0011  CEX8P EP11-Coproc online            0        -     14      - -          soft        unbound' \
    fusecrypt lszcrypt -V
for name in disks others; do
    fusecrypt pvsecret create association --output $name.request --output-secret $name.secret $name
    fusecrypt pvsecret add $name.request
done
shows 'Total number of secrets: 2' fusecrypt pvsecret list
says "$(printf disks | sha256sum | cut -d ' ' -f 1)" "$(printf others | sha256sum | cut -d ' ' -f 1)"

fusecrypt chzcrypt --se-bind 05.0011
refused 6 fusecrypt zkey generate key --xts --key-type EP11-AES
says 'bound, not associated with a secret'
refused 4 fusecrypt chzcrypt --se-associate 2 05.0011
shows '05.0011 is usable' fusecrypt chzcrypt --se-associate 0 -V 05.0011
head -c 64 /dev/urandom > clear.key
fusecrypt zkey generate -N ep11 --xts --key-type EP11-AES --clearkey clear.key --volumes /dev/v:v
format volume "$ZKEY_REPOSITORY/ep11.skey"
fusecrypt open --key-file one volume a
write_data a
fusecrypt close a

# An open volume goes on; what is closed does not open without the secret, nor with another one.
fusecrypt open --key-file one volume a
fusecrypt chzcrypt --se-unbind 05.0011
same_data a
fusecrypt close a
refused 6 fusecrypt open --key-file one volume a
says 'bound to EP11 session' '05.0011 is unbound, not associated with its secret'
fusecrypt chzcrypt --se-bind 05.0011
fusecrypt chzcrypt --se-associate 1 05.0011
refused 6 fusecrypt open --key-file one volume a
says 'bound to EP11 session' '05.0011 has EP11 session'

# An adapter that others use too takes keys of this guest's only.
fusecrypt chzcrypt --se-unbind 05.0011
fusecrypt zkey generate plain.key --xts --key-type EP11-AES
fusecrypt adapter control-points --clear ALLOW_NONSESSION 05.0011
refused 6 fusecrypt zkey validate plain.key
refused 6 fusecrypt zkey generate other.key --xts --key-type EP11-AES
says 'XCP_CPB_ALLOW_NONSESSION is off'
fusecrypt chzcrypt --se-bind 05.0011
fusecrypt chzcrypt --se-associate 0 05.0011
open_and_compare volume two

# The machine boots: secrets and bindings are gone, the request is not.
kill "$(fusecrypt status --json | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')"
export FUSECRYPT_BOOT_ID=00000000-0000-4000-8000-000000000002
tries=0
until fusecrypt pvsecret list | grep -q -x 'Total number of secrets: 0'; do # keystored ends, too
    tries=$((tries + 1))
    [ $tries -lt 40 ] || fail 'the secrets outlive the boot'
    sleep 0.25
done
refused 6 fusecrypt open --key-file one volume a
fusecrypt pvsecret add disks.request
fusecrypt chzcrypt --se-bind 05.0011
fusecrypt chzcrypt --se-associate 0 05.0011
fusecrypt pvsecret lock
refused 8 fusecrypt pvsecret add others.request
open_and_compare volume one

# References to secrets: 44 bytes: type 00, version 09, secret type 6 (AES-256), 32 bytes of key, the
# secret's id. No adapter can use them.
refused 9 fusecrypt zkey pvsecrets list
says pvsecrets
refused 9 fusecrypt zkey generate --key-type PVSECRET-AES key
key="$ZKEY_REPOSITORY/secret.skey"
{ printf '\0\0\0\0\11\0\0\0\0\6\0\40' && head -c 32 /dev/urandom; } > "$key"
[ "$(wc -c < "$key")" = 44 ]
properties='cipher=paes iv-mode=plain64 key-type=PVSECRET-AES volume-type=PLAIN'
for one in $properties; do echo "$one"; done > "$ZKEY_REPOSITORY/secret.info"
hash=$(for one in $properties; do printf '%s' "${one%%=*}${one#*=}"; done | sha256sum)
echo "__hash__=${hash%% *}" >> "$ZKEY_REPOSITORY/secret.info"
shows 'Key type             : PVSECRET-AES' fusecrypt zkey list
refused 1 fusecrypt zkey validate
says '1 keys are valid, 1 keys are invalid'
