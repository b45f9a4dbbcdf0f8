"""Demand traces: what was asked, when, by whom, read from public and home-made files.

`files.read_trace` is the door; the format is told from the content, never from the name.
"""
