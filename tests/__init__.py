"""Tests of fusecrypt."""
