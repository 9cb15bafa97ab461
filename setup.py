"""The native engine is a cffi extension, which pyproject.toml alone cannot declare."""

from setuptools import setup

setup(cffi_modules=["dmcrypt/engine/src/build_engine.py:ffibuilder"])
