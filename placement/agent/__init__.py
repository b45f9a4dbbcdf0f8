"""One agent a node: it owns the node's GPUs and runs the engines on them."""
