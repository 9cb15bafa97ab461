"""Real references for the tests: cryptsetup in user space, the kernel's dm-crypt in a VM."""
