"""Secure keys, protected keys and the coprocessors that turn one into the other."""
