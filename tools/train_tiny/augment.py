"""What happens to speech on its way to a microphone, for batches on the GPU; and the runtime's log-mel for them."""

from __future__ import annotations

import torch
from torch import Tensor

from omni_rt.io.mel import hann, mel_filterbank

RATE = 16000


class LogMel:
    """The log-mel front end of the runtime (omni_rt.io.mel.log_mel) for a padded batch."""

    def __init__(self, device: torch.device) -> None:
        self.window = torch.from_numpy(hann(400)).float().to(device)
        self.filters = torch.from_numpy(mel_filterbank(201, 128, 0.0, 8000.0, RATE).copy()).float().to(device)

    def __call__(self, waves: Tensor, lengths: Tensor, most: int | None = None) -> tuple[Tensor, Tensor]:
        """Return log-mels [B, 128, F] of waves [B, N], 0 beyond the frames of each clip, and these frames [B].

        F is `most`, or the next multiple of 100 that holds all frames.
        """
        index = torch.arange(-200, waves.shape[1] + 200, device=waves.device).expand(len(waves), -1).abs()
        last = lengths[:, None] - 1
        index = torch.where(index > last, 2 * last - index, index).clamp(0, waves.shape[1] - 1)
        windows = waves.gather(1, index).unfold(1, 400, 160) * self.window
        power = torch.fft.rfft(windows).abs().square()
        frames = lengths // 160
        logs = (power @ self.filters).clamp(min=1e-10).log10()
        valid = torch.arange(logs.shape[1], device=waves.device) < frames[:, None]
        loudest = logs.amax(2).masked_fill(~valid, -10).amax(1)
        logs = ((torch.maximum(logs, loudest[:, None, None] - 8) + 4) / 4).masked_fill(~valid[..., None], 0)
        wanted = -(-int(frames.max()) // 100) * 100 if most is None else most
        logs = logs[:, :wanted]
        return torch.nn.functional.pad(logs, (0, 0, 0, wanted - logs.shape[1])).transpose(1, 2), frames


def _uniform(count: int, low: float, high: float, device: torch.device) -> Tensor:
    return low + (high - low) * torch.rand(count, device=device)


def _chosen(count: int, odds: float, device: torch.device) -> Tensor:
    return (torch.rand(count, device=device) < odds).float()[:, None]


def white_to_brown(count: int, length: int, device: torch.device) -> Tensor:
    """Return noise [count, length] of unit power whose spectrum falls by 0 to 6 dB an octave."""
    bins = length // 2 + 1
    slope = _uniform(count, 0, 1, device)[:, None]
    shape = torch.arange(bins, device=device).clamp(min=length * 60 / RATE)[None] ** -slope
    noise = torch.fft.irfft(torch.fft.rfft(torch.randn(count, length, device=device)) * shape, length)
    return noise / noise.square().mean(1, keepdim=True).sqrt()


def add_noise(waves: Tensor, lengths: Tensor, decibels: Tensor) -> Tensor:
    """Add coloured noise to waves [B, N] at a ratio of speech to noise of `decibels` [B]."""
    valid = torch.arange(waves.shape[1], device=waves.device) < lengths[:, None]
    power = waves.square().sum(1) / lengths
    level = (power / 10 ** (decibels / 10)).sqrt()
    return waves + white_to_brown(*waves.shape, waves.device) * level[:, None] * valid


def augment(waves: Tensor, lengths: Tensor, strength: float = 1.0) -> Tensor:
    """Return waves [B, N] with random equaliser, room, noise and gain; about a third of them stay nearly clean."""
    count, length = waves.shape
    device = waves.device
    size = 1 << (length + RATE // 4 - 1).bit_length()
    spectrum = torch.fft.rfft(waves, size)
    spectrum = spectrum * _equaliser(count, spectrum.shape[1], device, strength)
    spectrum = spectrum * torch.fft.rfft(_rooms(count, device, strength), size)
    waves = torch.fft.irfft(spectrum, size)[:, :length]
    waves = waves * (torch.arange(length, device=device) < lengths[:, None])
    waves = waves * (0.5 / waves.abs().amax(1, keepdim=True).clamp(min=1e-4))
    quiet = torch.rand(count, device=device) < 1 - 0.65 * strength
    decibels = torch.where(quiet, _uniform(count, 35, 60, device), _uniform(count, 4, 30, device))
    waves = add_noise(waves, lengths, decibels)
    return (waves * 10 ** (_uniform(count, -26, 4, device) / 20)[:, None]).clamp(-1, 1)


def _equaliser(count: int, bins: int, device: torch.device, strength: float) -> Tensor:
    """Return gains [count, bins]: a smooth curve of a few decibels, and for some a band with an upper end."""
    knots = torch.randn(count, 1, 8, device=device) * 4 * strength
    curve = torch.nn.functional.interpolate(knots, bins, mode="linear", align_corners=True)[:, 0]
    curve = curve * _chosen(count, 0.6, device)
    gains = 10 ** (curve / 20)
    hertz = torch.linspace(0, RATE / 2, bins, device=device)
    top = _uniform(count, 3200, 7500, device)[:, None]
    cut = torch.sigmoid((top - hertz) / 150)
    narrow = _chosen(count, 0.2 * strength, device)
    return gains * (narrow * cut + 1 - narrow)


def _rooms(count: int, device: torch.device, strength: float) -> Tensor:
    """Return impulse responses [count, 0.25 s]: the direct sound, and for some an echo that dies away."""
    time = torch.arange(RATE // 4, device=device) / RATE
    fading = _uniform(count, 0.02, 0.08, device)[:, None]
    tail = torch.randn(count, len(time), device=device) * torch.exp(-time / fading)
    tail = tail * (time > 0.002) / (fading * RATE / 2).sqrt()
    response = tail * _uniform(count, 0.1, 0.6, device)[:, None] * _chosen(count, 0.35 * strength, device)
    response[:, 0] = 1
    return response


def mask_mel(mel: Tensor, frames: Tensor) -> Tensor:
    """Hide two bands and two stretches of each log-mel [B, 128, F] (SpecAugment)."""
    count, mels, length = mel.shape
    device = mel.device
    mean = mel.sum((1, 2)) / (mels * frames)
    hidden = torch.zeros(mel.shape, dtype=torch.bool, device=device)
    for axis, size, most in (
        (1, mels, torch.full((count,), 18.0, device=device)),
        (2, length, (frames * 0.1).clamp(max=20)),
    ):
        for _ in range(2):
            width = torch.rand(count, device=device) * most
            reach = frames if axis == 2 else torch.full((count,), mels, device=device)
            start = torch.rand(count, device=device) * (reach - width)
            place = torch.arange(size, device=device)
            band = (place >= start[:, None]) & (place < (start + width)[:, None])
            hidden |= band[:, :, None] if axis == 1 else band[:, None, :]
    valid = torch.arange(length, device=device) < frames[:, None]
    return torch.where(hidden & valid[:, None], mean[:, None, None], mel)


def warp_mel(mel: Tensor, frames: Tensor) -> Tensor:
    """Move the formants of log-mels [B, 128, F] up or down by up to a tenth, as another throat would."""
    count, mels, _ = mel.shape
    source = torch.arange(mels, device=mel.device) * _uniform(count, 0.9, 1.1, mel.device)[:, None]
    below = source.floor().clamp(0, mels - 2)
    share = (source - below).clamp(0, 1)[..., None]
    index = below.long()[..., None].expand_as(mel)
    return mel.gather(1, index) * (1 - share) + mel.gather(1, index + 1) * share


def ctc_loss(odds: Tensor, steps: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Return the mean CTC loss per label; the library's own cannot be part of a CUDA graph.

    `odds` [B, T, W] are log-probabilities of which `steps` [B] rows are real, `labels` [B, L] of which `counts` [B].
    Clips with more labels than rows count as 0.
    """
    batch, length, _ = odds.shape
    never = -1e30
    states = torch.zeros(batch, 2 * labels.shape[1] + 1, dtype=torch.long, device=odds.device)
    states[:, 1::2] = labels
    emitted = odds.gather(2, states[:, None].expand(-1, length, -1))
    jump = (states != 0) & (states != torch.nn.functional.pad(states, (2, 0), value=-1)[:, :-2])
    alpha = torch.full_like(emitted[:, 0], never)
    alpha = torch.cat([emitted[:, 0, :2], alpha[:, 2:]], 1)
    for step in range(1, length):
        stay = torch.nn.functional.pad(alpha, (2, 0), value=never)
        three = torch.stack([alpha, stay[:, 1:-1], stay[:, :-2].masked_fill(~jump, never)])
        moved = three.logsumexp(0) + emitted[:, step]
        alpha = torch.where((step < steps)[:, None], moved, alpha)
    last = torch.stack([2 * counts, 2 * counts - 1], 1)
    loss = -alpha.gather(1, last).logsumexp(1) / counts
    return torch.where(loss < 1e4, loss, 0).mean()
