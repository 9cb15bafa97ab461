"""The file that an error is about is named, and only once."""

import pytest

from fusecrypt.daemon.cli.locating import locating
from fusecrypt.keystore.errors import ConfigError, FormatError


def test_the_path_comes_before_the_message_once() -> None:
    with pytest.raises(FormatError, match=r"^/img: broken$"), locating("/img"), locating("/img"):
        raise FormatError("broken")
    with pytest.raises(ConfigError, match=r"^/img: not changed$"), locating("/img"):
        raise ConfigError("/img: not changed")
    with pytest.raises(ConfigError, match=r"^/im: /img: broken$"), locating("/im"):
        raise ConfigError("/img: broken")
