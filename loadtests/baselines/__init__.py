"""Policies to be beaten, each implemented as exactly as its source allows."""
