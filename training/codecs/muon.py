"""Where Muon was: see training.muon."""

from training.muon import Muon, orthogonalise

__all__ = ["Muon", "orthogonalise"]
