"""What of the C library Python may call: its declarations for cffi, one string."""

from __future__ import annotations

from typing import Final

import cdef_crypto  # beside this file

HEADERS: Final = ("wire.h", *cdef_crypto.HEADERS, "engine.h")

# Known by their size only, which a test compares with messages.py.
OPAQUE: Final = (
    "wire_header",
    "wire_hello",
    "wire_segment",
    "wire_device",
    "wire_node",
    "wire_rekey",
    "wire_resize",
    "wire_invalidate",
    "wire_secret",
    "wire_loopaes_keys",
    "wire_table_key",
    "wire_show_key",
    "wire_write_key",
    "wire_open_keyslot",
    "wire_create_keyslot",
    "wire_key_size",
    "wire_make_digest",
    "wire_digest_value",
    "wire_read",
    "wire_cipher_benchmark",
    "wire_cipher_speed",
    "wire_blob",
    "wire_exported_key",
    "wire_rsa_key",
    "wire_event",
    "wire_stats",
)

CDEF: Final = (
    cdef_crypto.CDEF
    + "".join(f"struct {name} {{ ...; }};\n" for name in OPAQUE)
    + """
struct engine_options {
    int control_fd;
    int fuse_fd;
    int session_fd;
    int lifetime_fd;
    int claim_fd;
    int clone_fds[16];
    unsigned clone_fd_count;
    unsigned readers;
    uint32_t kdf_memory_limit;
    bool force_mlock;
};
int engine_run(const struct engine_options *options, const char **failure);
"""
)
