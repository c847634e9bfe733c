"""Tests of src/subsets."""
