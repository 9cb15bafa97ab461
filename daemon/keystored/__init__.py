"""fusecrypt-keystored: the process that holds the adapters, and the way to it."""
