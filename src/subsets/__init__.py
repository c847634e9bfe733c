"""Models trained on random subsets of the training set, and the files that hold their losses."""
