"""Training data attribution: one module per estimator of design section 2."""
