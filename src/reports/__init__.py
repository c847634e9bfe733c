"""What the scripts report: tables and figures, each with a reading that comes from its numbers."""
