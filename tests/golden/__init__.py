"""Images made by the real cryptsetup, with what it made of them: see corpus.py."""
