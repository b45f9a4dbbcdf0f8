"""The data plane: one request at a time."""
