"""omni_rt: a local runtime for speech-and-vision models on any GPU, without PyTorch.

Importing the package opens no device and reads no model.
"""

from __future__ import annotations

from omni_rt.errors import (
    CancelledError,
    DeviceError,
    InputError,
    ModelFormatError,
    ModelNotFoundError,
    OmniError,
    OutOfMemoryError,
    UnsupportedError,
)

__all__ = [
    "CancelledError",
    "DeviceError",
    "InputError",
    "ModelFormatError",
    "ModelNotFoundError",
    "OmniError",
    "OutOfMemoryError",
    "UnsupportedError",
]
