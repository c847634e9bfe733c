"""Tests of src/fragility."""
