"""A discrete-event simulator of serving the ensemble."""
