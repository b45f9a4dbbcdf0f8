"""What the user asked for and cannot have. Pure, and light: the command line is told of it at once.

In: nothing. Out: an exception. Never: decides what is wrong.
"""


class AskedError(Exception):
    """The command asks for what the trace or the fleet does not have. For people, one sentence."""
