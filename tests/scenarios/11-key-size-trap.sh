# Scenario 11: luksFormat without --key-size takes the first 64 bytes of the secure key's file, which
# paes takes for a clear key: the volume opens without any adapter, and a secure key's token is public.
# The user sees: every tool warns of such a volume; setvp, validate and reencipher refuse it.
. "$(dirname "$0")/place.sh"
adapter 03.0039 mk1
fusecrypt zkey generate secure.key --xts
printf one > one
truncate -s 8M volume
cryptsetup luksFormat -q --type luks2 --cipher paes-xts-plain64 --volume-key-file secure.key \
    --key-size 512 --key-file one --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
    --offset 12288 --luks2-metadata-size 16k --luks2-keyslots-size 5m volume
cryptsetup luksDump volume
shows 'warning' fusecrypt luksDump volume
status=0
fusecrypt check volume > said || status=$?
cat said
[ $status != 0 ]
for command in 'setvp' 'validate' 'reencipher'; do
    refused 8 fusecrypt zkey-cryptsetup $command --key-file one volume
done
refused 8 fusecrypt open --key-file one volume a
# Our own luksFormat takes the size from the file.
truncate -s 32M good
fusecrypt luksFormat -q --cipher paes-xts-plain64 --volume-key-file secure.key \
    --pbkdf pbkdf2 --pbkdf-force-iterations 1000 good one
cryptsetup luksDump good > said
says 'Key:        1024 bits'
