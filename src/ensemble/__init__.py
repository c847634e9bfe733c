"""Ensembles: draws of the training randomness, stacks of members, their training and evaluation."""
