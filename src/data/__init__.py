"""Images and labels: where they come from, which of them are used, and how models take them."""
