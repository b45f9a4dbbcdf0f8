"""Fleets behind one port (`placement.fleet`): this machine, a Ray cluster."""
