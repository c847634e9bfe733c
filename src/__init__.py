"""Training data attribution as a random variable: ensembles, attribution scores, statistics."""
