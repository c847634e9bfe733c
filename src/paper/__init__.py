"""The tables and figures of the paper's argument: what each needs, what it costs, what draws it."""
