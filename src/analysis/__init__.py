"""What the scores say: one module for each question, computed from samples over draws."""
