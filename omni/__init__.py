"""omni: one transformer that reads and writes interleaved text, pictures, films and sound."""

from typing import TYPE_CHECKING, Any

from omni.errors import CheckpointError, ConfigError, InputError, OmniError

if TYPE_CHECKING:
    from omni.config import OmniConfig
    from omni.model import OmniModel
    from omni.parts import Action, Audio, Image, Text, Video
    from omni.pipeline import Omni

__all__ = [
    "Action",
    "Audio",
    "CheckpointError",
    "ConfigError",
    "Image",
    "InputError",
    "Omni",
    "OmniConfig",
    "OmniError",
    "OmniModel",
    "Text",
    "Video",
]

_HOMES = {
    "Action": "omni.parts",
    "Audio": "omni.parts",
    "Image": "omni.parts",
    "Omni": "omni.pipeline",
    "OmniConfig": "omni.config",
    "OmniModel": "omni.model",
    "Text": "omni.parts",
    "Video": "omni.parts",
}


def __getattr__(name: str) -> Any:
    """Import public names when they are first used, so that `import omni` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'omni' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
