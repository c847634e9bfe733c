"""Tests of src/tda."""
