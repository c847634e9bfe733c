"""Names of experiments, and what users register."""
