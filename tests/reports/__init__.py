"""Tests of src/reports."""
