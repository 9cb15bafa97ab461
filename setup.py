"""The native engine is a cffi extension, which pyproject.toml alone cannot declare."""

from setuptools import setup

setup(cffi_modules=["dmcrypt/engine/build_engine.py:ffibuilder"])
