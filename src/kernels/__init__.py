"""What torch has no single operation for, in C++: compiled where it is first used, for its CPU."""
