# Chapter: create an encrypted volume, and have it opened at boot.
# The user sees: `zkey generate`, and then the commands that zkey writes down for him do it all: the
# real luksFormat, setvp, and the crypttab lines. A dummy passphrase needs no one at boot.
. "$(dirname "$0")/place.sh"
adapter 03.0039 mk1
head -c 64 /dev/urandom > clear.key
truncate -s 20M luks.img
truncate -s 1M plain.img
fusecrypt zkey generate --xts --name luks --clearkey clear.key --volumes "$PWD/luks.img:a" \
    --sector-size 4096 --gen-dummy-passphrase
fusecrypt zkey generate --xts --name plain --clearkey clear.key --volumes "$PWD/plain.img:b" \
    --volume-type plain
fusecrypt zkey cryptsetup --volumes "$PWD/luks.img"
fusecrypt zkey cryptsetup --volumes "$PWD/luks.img" --run -q > said
cat said
says 'cryptsetup exit code: 0'
cryptsetup luksDump luks.img > said
cat said
says '1024 bits' 'paes-xts-plain64' 'paes-verification-pattern' '4096 [bytes]'
printf another > another
cryptsetup luksAddKey -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
    --key-file "$ZKEY_REPOSITORY/luks.pass" luks.img another

fusecrypt zkey crypttab | tee "$FUSECRYPT_CRYPTTAB"
fusecryptd --fork # as the service does at boot: all entries of the crypttab
shows 'a' fusecrypt status a
write_data a
dd if=data of="$device/b" bs=64k conv=notrunc,fsync status=none
fusecrypt close a
fusecrypt close b

fusecrypt open a
same_data a
fusecrypt close a
fusecrypt open --key-file another luks.img a
same_data a
fusecrypt close a
