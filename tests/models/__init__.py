"""Tests of src/models."""
