"""What the vocoder is trained on: distances of spectra, and discriminators that see spectrograms and periods."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tools.train_tiny.codec import log_mel

RESOLUTIONS = ((256, 64), (512, 128), (1024, 240), (2048, 480))
"""Window and hop of each spectrogram that is compared, in samples at 24 kHz."""

PERIODS = (2, 3, 5, 7, 11)


def spectrum(samples: torch.Tensor, window: int, hop: int) -> torch.Tensor:
    """Return the magnitudes [B, window / 2 + 1, frames] of samples [B, S]."""
    hann = torch.hann_window(window, device=samples.device)
    return torch.stft(samples, window, hop, window=hann, return_complex=True).abs()


def spectral_distance(made: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Return the distance of samples [B, S]: of log-mels, and of spectra in logarithm and relative to size."""
    total = functional.l1_loss(log_mel(made), log_mel(true))
    for window, hop in RESOLUTIONS:
        a, b = spectrum(made, window, hop), spectrum(true, window, hop)
        total = total + functional.l1_loss(torch.log(a + 1e-3), torch.log(b + 1e-3)) / len(RESOLUTIONS)
        total = total + torch.linalg.norm(a - b) / torch.linalg.norm(b).clamp(min=1) / len(RESOLUTIONS)
    return total


class Layers(nn.Module):
    """Convolutions with leaky rectifiers between; returns the output of every layer."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.utils.parametrizations.weight_norm(layer) for layer in layers)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the features of each layer, the verdict last."""
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
            x = functional.leaky_relu(x, 0.1)
        return features


class Discriminators(nn.Module):
    """Three views as spectrograms [B, 1, bins, frames], five as samples folded at a period [B, 1, S / p, p]."""

    def __init__(self, channels: int = 24) -> None:
        super().__init__()
        self.spectral = nn.ModuleList(
            Layers(
                [
                    nn.Conv2d(1, channels, (9, 3), padding=(4, 1)),
                    nn.Conv2d(channels, channels, (9, 3), stride=(2, 1), padding=(4, 1)),
                    nn.Conv2d(channels, channels, (9, 3), stride=(2, 1), padding=(4, 1), dilation=(1, 1)),
                    nn.Conv2d(channels, channels, (9, 3), stride=(2, 1), padding=(4, 2), dilation=(1, 2)),
                    nn.Conv2d(channels, channels, 3, padding=1),
                    nn.Conv2d(channels, 1, 3, padding=1),
                ]
            )
            for _ in RESOLUTIONS[1:]
        )
        widths = (channels // 2, channels, 2 * channels, 4 * channels)
        self.periodic = nn.ModuleList(
            Layers(
                [
                    nn.Conv2d(a, b, (5, 1), stride=(3, 1), padding=(2, 0))
                    for a, b in zip((1, *widths[:-1]), widths, strict=True)
                ]
                + [
                    nn.Conv2d(widths[-1], widths[-1], (5, 1), padding=(2, 0)),
                    nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)),
                ]
            )
            for _ in PERIODS
        )

    def forward(self, samples: torch.Tensor) -> list[list[torch.Tensor]]:
        """Return the features of every discriminator for samples [B, S]."""
        found = []
        for (window, hop), view in zip(RESOLUTIONS[1:], self.spectral, strict=True):
            found.append(view(torch.log(spectrum(samples, window, hop) + 1e-3)[:, None]))
        for period, view in zip(PERIODS, self.periodic, strict=True):
            whole = samples[:, : samples.shape[1] // period * period]
            found.append(view(whole.reshape(len(whole), 1, -1, period)))
        return found


def discriminator_loss(true: list[list[torch.Tensor]], made: list[list[torch.Tensor]]) -> torch.Tensor:
    """Return the least-squares loss of telling true from made."""
    losses = [(1 - a[-1]).square().mean() + b[-1].square().mean() for a, b in zip(true, made, strict=True)]
    return torch.stack(losses).mean()


def generator_losses(
    true: list[list[torch.Tensor]], made: list[list[torch.Tensor]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of being told apart, and the relative distance of the features."""
    fooled = torch.stack([(1 - b[-1]).square().mean() for b in made]).mean()
    distances = [
        functional.l1_loss(y, x.detach()) / x.detach().abs().mean().clamp(min=1e-3)
        for a, b in zip(true, made, strict=True)
        for x, y in zip(a[:-1], b[:-1], strict=True)
    ]
    return fooled, torch.stack(distances).mean()
