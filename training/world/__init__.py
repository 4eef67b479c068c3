"""The omni world: scenes composed from a seed, with everything that is true of them known."""
