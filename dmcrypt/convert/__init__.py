"""LUKS1 to LUKS2 and back, in place: data and their offset stay, each keyslot keeps its number."""
