"""One checkpoint of a model, and the components that lie in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from omni_rt.errors import ModelFormatError
from omni_rt.weights import Checkpoint, Weights, placed_bytes

if TYPE_CHECKING:
    from omni_rt.devices.device import Device

Progress = Callable[[int, int], None]
"""Called with the bytes that are done and the bytes in all."""


@dataclass(frozen=True)
class ModelPart:
    """A checkpoint; `prefixes` maps its components to the beginning of their names, `quants` to q8_0, f16 or None.

    The first prefix that fits a name wins. `ignored` are the prefixes of components that the config leaves out.
    """

    checkpoint: Checkpoint
    prefixes: Mapping[str, str]
    quants: Mapping[str, str | None]
    ignored: tuple[str, ...] = ()

    def names(self) -> dict[str, str]:
        """Return each tensor with its component; raise ModelFormatError for one that belongs to none."""
        found = {}
        for name in self.checkpoint.names():
            component = next((c for c, prefix in self.prefixes.items() if name.startswith(prefix)), None)
            if component is not None:
                found[name] = component
            elif not name.startswith(self.ignored):
                raise ModelFormatError(
                    f"the checkpoint holds {name}, which belongs to no component that its config describes; "
                    "use the config that belongs to the weights"
                )
        return found

    def weights(self, component: str, device: Device, on_read: Callable[[int], None]) -> Weights:
        """Return the weights of a component for a device; `on_read` as in Weights."""
        quant, prefix = self.quants[component], self.prefixes[component]
        return Weights(self.checkpoint, device, quant=quant, prefix=prefix, on_read=on_read)

    def placed_bytes(self) -> dict[str, int]:
        """Return about how many bytes each component's weights will take on its device."""
        needed = dict.fromkeys(self.prefixes, 0)
        for name, component in self.names().items():
            needed[component] += placed_bytes(self.checkpoint, name, self.quants[component])
        return needed


def read_counter(parts: Sequence[ModelPart], progress: Progress) -> Callable[[int], None]:
    """Return what counts the bytes of tensors that are read, and tells them to `progress`."""
    total = sum(4 * prod(part.checkpoint.shape(name)) for part in parts for name in part.names())
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        progress(done, total)

    return count
