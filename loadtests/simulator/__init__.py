"""A discrete-event simulator of a whole cluster: our own decisions, arithmetic for the rest."""
