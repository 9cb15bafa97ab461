# What boot.sh does with keystored's adapters: what seals them, and volumes under a token's key and a guest's. It is
# sourced. /root/drop-ins are the manual's words.
credential=/etc/credstore.encrypted/fusecrypt-keystore

# NAME KEY-TYPE BITS: a volume whose key is a secure one, in the crypttab, and open.
make_secure_volume() {
    expect "secure key" fusecrypt zkey generate --xts --keybits 256 --key-type "$2" "/root/$1.skey"
    truncate -s 48M "/srv/$1.img"
    chmod 600 "/srv/$1.img"
    expect "secure volume" fusecrypt luksFormat --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --cipher paes-xts-plain64 \
        --key-size "$3" --volume-key-file "/root/$1.skey" "/srv/$1.img" /etc/keys/data.key
    echo "$1 /srv/$1.img /etc/keys/data.key noauto,x-fusecrypt" >> /etc/crypttab
    expect open fusecrypt open "$1"
}

# FILE...: the drop-in for keystored's unit, where `systemctl edit` puts it; without any, none.
edit_keystored() {
    local place=/etc/systemd/system/fusecrypt-keystored.service.d
    rm -rf "$place"
    [ $# = 0 ] || { mkdir "$place" && (cd /root/drop-ins && cat "$@") > "$place/override.conf"; }
    expect reload systemctl daemon-reload
    expect "keystored's restart" systemctl restart fusecrypt-keystored.service
}

# METHOD
check_sealing() {
    equal sealing "$(fusecrypt adapter seal)" "The adapters are sealed with $1."
    [ ! -e /var/lib/fusecrypt/keystore/host.key ] || fail "the host key lies in a file still"
}

# The TPM's tools find their way under the unit's sandbox; a keystored that is started anew opens the state by it.
seal_by_tpm() {
    mkdir /run/tpm
    chown fusecrypt-keystore: /run/tpm
    expect swtpm runuser -u fusecrypt-keystore -- swtpm socket --daemon --tpm2 --tpmstate dir=/run/tpm --flags not-need-init,startup-clear \
        --server type=unixio,path=/run/tpm/sock --ctrl type=unixio,path=/run/tpm/sock.ctrl
    edit_keystored tpm.conf
    expect seal fusecrypt adapter seal --with tpm2
    check_sealing tpm2
    expect restart systemctl restart fusecrypt-keystored.service
    expect close fusecrypt close sec
    expect "open with the TPM" fusecrypt open sec
}

seal_by_credential() {
    refuse 6 "credential fusecrypt-keystore: none" fusecrypt adapter seal --with systemd-credential
    mkdir -p -m 700 "${credential%/*}"
    expect credential systemd-creds encrypt --with-key=host --name=fusecrypt-keystore - $credential < <(head -c 32 /dev/urandom)
    edit_keystored tpm.conf credential.conf softhsm.conf
    expect seal fusecrypt adapter seal --with systemd-credential
    check_sealing systemd-credential
    edit_keystored credential.conf softhsm.conf
}

# Without it, or with another, or when its file is missing, no key can be used, and nothing is broken by trying.
check_credential() {
    expect close fusecrypt close sec
    edit_keystored
    refuse 6 "credential fusecrypt-keystore: none" fusecrypt open sec
    refuse 6 "credential fusecrypt-keystore: none" fusecrypt adapter list
    head -c 32 /dev/urandom > /root/other
    printf '[Service]\nLoadCredential=fusecrypt-keystore:/root/other\n' > /root/drop-ins/other.conf
    edit_keystored other.conf
    refuse 6 "does not open with this systemd-credential" fusecrypt open sec
    rm /root/other
    systemctl restart fusecrypt-keystored.service > /dev/null 2>&1 && fail "keystored started without the file of its credential"
    # Whether its socket gave up, too, depends on how soon it was asked.
    refuse 6 "/run/fusecrypt/keystore" fusecrypt open sec
    edit_keystored credential.conf softhsm.conf
    expect "open with the credential" fusecrypt open sec
    check_keystore
}

# SoftHSM's token, which keystored's user owns; the PIN is sealed with the rest.
make_token() {
    expect token runuser -u fusecrypt-keystore -G softhsm -- softhsm2-util --init-token --free --label boot --so-pin 27182818 --pin 31415926
    (umask 077 && echo 31415926 > /root/pin)
    expect "the token's adapter" fusecrypt adapter create 04.0000 --mode pkcs11 \
        --uri 'pkcs11:token=boot?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/root/pin'
    rm /root/pin
    make_secure_volume hsm PKCS11-AES 1536
    fusecrypt status hsm | grep -q 'PKCS11-AES by adapter 04.0000' || fail "the token's volume"
    printf 'of the token' | dd of=$mapper/hsm bs=1 conv=notrunc,fsync 2> /dev/null
}

# An EP11 adapter that is bound to the guest, by the manual's unit, and a volume whose key is bound to its secret.
make_guest() {
    expect "EP11 adapter" fusecrypt adapter create 05.0011 --mode ep11 --batch-mode
    mkdir -p /etc/fusecrypt
    expect request fusecrypt pvsecret create association --output /etc/fusecrypt/disks.request disks
    expect unit mv /root/drop-ins/fusecrypt-guest.service /etc/systemd/system/
    expect guest systemctl enable --now fusecrypt-guest.service
    make_secure_volume guest EP11-AES 5376
    printf 'of the guest' | dd of=$mapper/guest bs=1 conv=notrunc,fsync 2> /dev/null
}

check_guest() {
    fusecrypt lszcrypt -V | grep -q '^05.0011 .* usable *$' || fail "the guest's adapter: $(fusecrypt lszcrypt -V)"
    fusecrypt status guest | grep -q 'EP11-AES by adapter 05.0011' || fail "the guest's volume"
    equal "what the guest's secret guards" "$(dd if=$mapper/guest bs=12 count=1 2> /dev/null)" "of the guest"
}

# Without it the volume does not open, be the adapter there or not.
check_unbound() {
    expect close fusecrypt close guest
    expect unbind fusecrypt chzcrypt --se-unbind 05.0011
    refuse 6 "not associated with its secret" fusecrypt open guest
}
