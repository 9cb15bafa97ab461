# Scenario 15: secrets of a Secure Execution guest, and adapters bound to it. Both need the ultravisor
# of IBM Z, and there is nothing to play it with yet: see README.
# The user sees: keys that are references to such secrets are listed for what they are, no adapter can
# use them; the commands and options are refused by name.
. "$(dirname "$0")/place.sh"
adapter 03.0039 mk1
refused 9 fusecrypt zkey pvsecrets list
says pvsecrets
refused 9 fusecrypt zkey generate --key-type PVSECRET-AES key
refused 9 fusecrypt chzcrypt --se-bind 03.0039

# 44 bytes: type 00, version 09, secret type 6 (AES-256), 32 bytes of key, the secret's id.
mkdir -m 700 "$ZKEY_REPOSITORY"
key="$ZKEY_REPOSITORY/secret.skey"
{ printf '\0\0\0\0\11\0\0\0\0\6\0\40' && head -c 32 /dev/urandom; } > "$key"
[ "$(wc -c < "$key")" = 44 ]
properties='cipher=paes iv-mode=plain64 key-type=PVSECRET-AES volume-type=PLAIN'
for one in $properties; do echo "$one"; done > "$ZKEY_REPOSITORY/secret.info"
hash=$(for one in $properties; do printf '%s' "${one%%=*}${one#*=}"; done | sha256sum)
echo "__hash__=${hash%% *}" >> "$ZKEY_REPOSITORY/secret.info"
shows 'Key type             : PVSECRET-AES' fusecrypt zkey list
refused 1 fusecrypt zkey validate
says '0 keys are valid, 1 keys are invalid'
