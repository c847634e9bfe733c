"""Whole files, and who writes them."""
