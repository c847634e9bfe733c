"""The tests, laid out as src/ is; tests/reference.py holds naive versions of every method."""
