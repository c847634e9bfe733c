"""Tests of src/analysis."""
