# Scenario 1: keys of each type and size, with and without XTS, random and from clear keys.
# The user sees: all are valid under the CURRENT master key, with their sizes; the verification
# pattern of a known clear key is the published one, whichever type wraps it. Nothing is overwritten.
. "$(dirname "$0")/place.sh"
adapter 03.0039 mk1
ep11_adapter 04.0039 wk1

count() { # count BYTES: 00 01 02 …
    i=0
    while [ $i -lt "$1" ]; do
        printf "\\$(printf %03o $i)"
        i=$((i + 1))
    done
}
head -c 16 /dev/zero > cbc-128
count 24 > cbc-192
count 32 > cbc-256
cp cbc-256 xts-128
count 64 > xts-256
for type in CCA-AESDATA CCA-AESCIPHER EP11-AES; do
    for size in cbc-128 cbc-192 cbc-256; do
        fusecrypt zkey generate --name $type-$size --key-type $type --clearkey $size
    done
    for size in xts-128 xts-256; do
        fusecrypt zkey generate --name $type-$size --key-type $type --clearkey $size --xts
    done
    fusecrypt zkey generate --name $type-random --key-type $type --xts --keybits 256
done

fusecrypt zkey validate > all
cat all
grep -q '^18 keys are valid, 0 keys are invalid' all
shown() { # shown TIMES TEXT
    [ "$(grep -c -F -e "$2" all)" = "$1" ] || fail "not $1 times: $2"
}
shown 18 'Status               : Valid'
shown 18 'Enciphered with      : CURRENT master key (MKVP: '
shown 3 'Secure key size      : 64 bytes'
shown 3 'Secure key size      : 128 bytes'
shown 3 'Secure key size      : 136 bytes'
shown 3 'Secure key size      : 272 bytes'
shown 3 'Secure key size      : 336 bytes'
shown 3 'Secure key size      : 672 bytes'
for half in 66e94bd4ef8a2c3b884cfa59ca342b2e f795bd4a52e29ed713d313fa20e98dbc \
    916251821c73a522c396d62738019607 9b47544fe2e6d8d6809c5b05fd9e6687 \
    f29000b62a499fd0a9f39a6add2e7780 d4e96925c0bfcffb52f8a187ee774aab \
    f071a2b402c105ea37024133e24d6ef6 212e8cc0175e1b6b32657d54f159daf6 \
    cd6b103236fbd87dba93e9001e29bc3d 5e885d6abd1577e3e0e0a5f49e444894; do
    shown 3 $half
done

refused 1 fusecrypt zkey generate --xts --keybits 192 key # XTS has no AES-192
refused 9 fusecrypt zkey generate --key-type PVSECRET-AES key
fusecrypt zkey generate key
refused 5 fusecrypt zkey generate key
