# Scenario 14: a key of a key-management system (KMIP, EKMF Web). There is no such system here, and
# none can be reached yet: see README.
# The user sees: `zkey kms` is refused by name; a key that the real zkey bound to one is listed, is
# usable with the adapter that has its master key, and does not change behind the system's back.
. "$(dirname "$0")/place.sh"
adapter 03.0039 mk1
refused 9 fusecrypt zkey kms list
says kms

# Bind a key as zkey does: three more properties, and the hash over all of them.
fusecrypt zkey generate --xts --name bound --key-type CCA-AESCIPHER
info="$ZKEY_REPOSITORY/bound.info"
sed -i '/^__hash__=/d' "$info"
printf 'kms=KMIP\nkms-xts-key1-id=17\nkms-xts-key1-label=disk-1\n' >> "$info"
hash=$(while IFS= read -r line; do printf '%s' "${line%%=*}${line#*=}"; done < "$info" | sha256sum)
echo "__hash__=${hash%% *}" >> "$info"

shows 'KMS                  : KMIP' fusecrypt zkey list --kms-bound
shows '1 keys are valid' fusecrypt zkey validate
fusecrypt zkey list --local > said
[ ! -s said ] || fail 'it is called local'
refused 1 fusecrypt zkey change --name bound --apqns 03.0039
refused 1 fusecrypt zkey copy --name bound --new-name free
fusecrypt zkey copy --name bound --new-name free --local
shows 'Key                          : free' fusecrypt zkey list --local
