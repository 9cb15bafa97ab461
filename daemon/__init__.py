"""Everything that waits: FUSE, sockets, crypttab, policy."""
