"""A folder for vLLM's own interpreter: only `warmtide_guard.py` is in it, see there."""
