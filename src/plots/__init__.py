"""The figures: each drawn from arrays and frames."""
