"""Every error that omni_rt raises on purpose, as one tree.

A message says what is wrong, where, which two facts disagree, and what to do about it.
"""

from __future__ import annotations


class OmniError(Exception):
    """Base of every error that omni_rt raises on purpose."""


class ModelFormatError(OmniError):
    """A checkpoint, config or tokenizer file is malformed, or disagrees with another."""


class ModelNotFoundError(OmniError):
    """No model lies where the reference points."""


class UnsupportedError(OmniError):
    """The request is well formed, but this model, file or build cannot do it."""


class InputError(OmniError):
    """A prompt, an audio clip, an image or an argument cannot be used."""


class DeviceError(OmniError):
    """A device is missing, was lost, or did not answer in time."""


class OutOfMemoryError(OmniError):
    """More memory is needed than is left: `needed` and `available` in bytes."""

    def __init__(self, message: str, needed: int, available: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.available = available


class CancelledError(OmniError):
    """The caller stopped the work before it was finished."""
