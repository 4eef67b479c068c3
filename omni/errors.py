"""The errors a user can cause. Everything else that goes wrong is ours, and is an assert."""

__all__ = ["OmniError", "ConfigError", "InputError", "CheckpointError"]


class OmniError(Exception):
    """Base of all errors that a user can mend; the message names the thing and the remedy."""


class ConfigError(OmniError, ValueError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another one."""


class InputError(OmniError, ValueError):
    """A message, a picture, a clip or a recording cannot be used as it is."""


class CheckpointError(OmniError):
    """A checkpoint folder is incomplete, damaged, or made for something else."""
