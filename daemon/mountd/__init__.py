"""fusecrypt-mountd: the one privileged part of the service, asked by the daemon, and its client."""
