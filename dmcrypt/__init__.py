"""Formats to tables, tables to a data path: dm-crypt's mapping in user space."""
