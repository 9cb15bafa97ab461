# Chapter: change the master key under the repository, LUKS2 volumes and key files, in one go.
# The user sees: a plan; nothing is completed while anything is not staged; volumes stay open; who
# changes his mind before it is set rolls back. Afterwards all keys are under the new master key.
. "$(dirname "$0")/place.sh"
adapter 03.0039 mk1
head -c 64 /dev/urandom > clear.key
fusecrypt zkey generate --xts --name archive --clearkey clear.key
fusecrypt zkey generate secure.key --xts --clearkey clear.key
cp secure.key plain.key
format luks.img secure.key
truncate -s 1M plain.img
cat > "$FUSECRYPT_CRYPTTAB" << END
a $PWD/luks.img $PWD/one luks
b $PWD/plain.img $PWD/plain.key plain,cipher=paes-xts-plain64,size=1024
END
fusecryptd --fork
write_data a
dd if=data of="$device/b" bs=64k conv=notrunc,fsync status=none

shows '3 done' fusecrypt master-key plan
load_new 03.0039 mk2
shows '3 unstaged' fusecrypt master-key plan
refused 8 fusecrypt master-key complete
refused 10 fusecrypt master-key stage # the volume's second passphrase is not known
fusecrypt master-key stage --key-file two
fusecrypt master-key rollback
fusecrypt master-key stage --key-file two
refused 8 fusecrypt master-key complete # is not set
cryptsetup luksDump luks.img

fusecrypt adapter master-key set 03.0039
shows '3 ready' fusecrypt master-key plan
fusecrypt master-key complete
shows '3 done' fusecrypt master-key plan
same_data a
head -c 65536 "$device/b" | cmp - data
set_master_key 03.0039 mk3 # the first one is nowhere any more
fusecrypt master-key stage --key-file two
fusecrypt master-key complete
for name in a b; do
    fusecrypt close $name
    fusecrypt open $name
    head -c 65536 "$device/$name" | cmp - data
    fusecrypt close $name
done
open_and_compare luks.img two
cryptsetup luksDump luks.img > said
lacks paes-reencipher unbound
