"""Engine kinds: how each is spawned, probed, put to sleep and ended."""
