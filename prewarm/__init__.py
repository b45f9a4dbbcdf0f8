"""The control plane: what will be asked, and when to be ready for it."""
