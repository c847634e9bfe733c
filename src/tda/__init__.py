"""Training data attribution: one module per estimator, which begins with its definition."""
