"""Judges of what a model made: by computation against the known world, and by a network trained elsewhere."""
