"""Published results set against what our constants and the simulator's parts give for them."""
