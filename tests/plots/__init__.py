"""Tests of src/plots."""
