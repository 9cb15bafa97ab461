"""A secure guest with two adapters and two secrets, for several tests."""

from fusecrypt.keystore.coprocessor import AdapterInfo, Apqn, Register
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.secret_list import SecretList
from tests.unit.keystore.samples import FIRST, SECOND, master_key

BOOT = "0c4e1b5e-3b0c-4a7e-9d6f-1a2b3c4d5e6f"


def make_guest(directory, boot) -> Coprocessors:
    """Two EP11 adapters with the same wrapping key, and two secrets; ``boot`` has the boot's id."""
    made = Coprocessors(directory, read_boot_id=lambda: boot[0])
    made.create(FIRST, "ep11")
    made.create(SECOND, "ep11", with_master_key=False)
    made.leave_imprint(SECOND)
    made.clone(SECOND, FIRST, Register.CURRENT)
    made.commit_new(SECOND)
    made.set_new(SECOND)
    for number, name in enumerate(("one", "two")):
        add_secret(made, name, master_key(number))
    return made


def add_secret(coprocessors: Coprocessors, name: str, secret: bytearray) -> SecretList:
    request, _ = coprocessors.make_request(name, bytearray(secret))
    return coprocessors.add_secret(request)


def associate(coprocessors: Coprocessors, apqn: Apqn, index: int) -> AdapterInfo:
    coprocessors.bind(apqn)
    return coprocessors.associate(apqn, index)
