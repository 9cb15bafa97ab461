"""Files that are read past the page cache, as those of dev/pkey, as files that keys come from."""

import pytest

from tests.fuse.test_paes import adapter, passphrase  # noqa: F401 (fixtures)

pytestmark = pytest.mark.fuse


def test_a_volume_is_made_with_a_fresh_key_of_dev_pkey(adapter, passphrase):  # noqa: F811
    adapter.start()
    token = adapter.runtime_dir / "dev" / "pkey" / "ccadata" / "ccadata_aes_256_xts"
    image = adapter.write_file("image", bytes(20 << 20))
    adapter.cli(
        *("luksFormat", "-q", "--cipher", "paes-xts-plain64", "--volume-key-file", token),
        *("--pbkdf", "pbkdf2", "--iter-time", "10", image, passphrase),
    )
    adapter.cli("open", "-d", passphrase, image, "v")
    assert adapter.cli("status", "v", "--json").json["key_bits"] == 1024
    assert adapter.stop() == 0
