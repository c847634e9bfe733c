"""The exceptions that a person can cause and put right."""


class UserError(Exception):
    """Wrong or missing input; its message is the whole of what the person reads.

    The message is one line: what was given, what is allowed, and what to run first if something
    is missing. `src.cli.run` prints it and ends the script with exit code 2.
    """


class DivergedError(UserError):
    """A computation came to no number: with the same settings it never will, from any piece."""
