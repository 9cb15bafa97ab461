"""The engine: the process that alone holds keys and plaintext, and the way to talk to it."""
