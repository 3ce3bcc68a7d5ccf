"""Two recognisers that judge speech, run in NumPy: word-level CTC over the words of the tiny model's grammar.

They were trained by tools/train_tiny/recognisers.py on voices that the tiny model never heard. One convolves, the
other attends; both hear 16 kHz and write 25 labels a second.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import soxr

from omni_rt.io.mel import log_mel
from tools.train_tiny.grammar import SOUNDS_LIKE

WEIGHTS = Path(__file__).with_name("recognisers.npz")
NAMES = ("first", "second")
HEADS = 4


def words_heard(samples: np.ndarray, rate: int, name: str) -> list[str]:
    """Return the words that recogniser `name` hears in mono `samples` at `rate` Hz."""
    if rate != 16000:
        samples = soxr.resample(samples, rate, 16000)
    mel = log_mel(np.asarray(samples, np.float32))
    labels = _logits(np.pad(mel, ((0, -len(mel) % 100), (0, 0))), name)[: -(-len(mel) // 4)].argmax(1)
    words = _weights()["words"]
    return [str(words[label]) for label, before in zip(labels, [0, *labels], strict=False) if label not in (0, before)]


def word_errors(heard: list[str], wanted: list[str]) -> int:
    """Return the substitutions, insertions and deletions between two lists of words; words that sound alike agree."""
    heard, wanted = ([SOUNDS_LIKE.get(word, word) for word in words] for words in (heard, wanted))
    row = list(range(len(wanted) + 1))
    for i, word in enumerate(heard, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(wanted, 1):
            before, row[j] = row[j], min(before + (word != other), row[j] + 1, row[j - 1] + 1)
    return row[-1]


@cache
def _weights() -> dict[str, np.ndarray]:
    with np.load(WEIGHTS) as file:
        return {
            name: file[name] if file[name].dtype.kind == "U" else file[name].astype(np.float32) for name in file.files
        }


def _logits(mel: np.ndarray, name: str) -> np.ndarray:
    """Return logits [F / 4, W] of log-mels [F, 128], F a multiple of 100."""
    return _convolutional(mel, name) if name == "first" else _attentive(mel, name)


def _convolutional(x: np.ndarray, name: str) -> np.ndarray:
    for layer in ("first", "second"):
        x = _gelu(_convolve(x, f"{name}.{layer}", 2))
    for block in range(5):
        inner = _norm(_convolve(x, f"{name}.depthwise.{block}"), f"{name}.norm.{block}")
        x = x + _linear(_gelu(_linear(inner, f"{name}.wide.{block}")), f"{name}.narrow.{block}")
    return _linear(_norm(x, f"{name}.last"), f"{name}.head")


def _attentive(mel: np.ndarray, name: str) -> np.ndarray:
    pairs = mel.reshape(len(mel), 64, 2).mean(2)
    x = _linear(pairs.reshape(len(mel) // 4, -1), f"{name}.join")
    x = x + _convolve(x, f"{name}.places")
    for block in range(3):
        x = x + _linear(_attend(_norm(x, f"{name}.norm.{block}"), f"{name}.mix.{block}"), f"{name}.out.{block}")
        x = x + _gelu(_convolve(x, f"{name}.near.{block}"))
        wide = _gelu(_linear(_norm(x, f"{name}.norm2.{block}"), f"{name}.wide.{block}"))
        x = x + _linear(wide, f"{name}.narrow.{block}")
    return _linear(_norm(x, f"{name}.last"), f"{name}.head")


def _attend(x: np.ndarray, name: str) -> np.ndarray:
    q, k, v = _linear(x, name).reshape(len(x), 3, HEADS, -1).transpose(1, 2, 0, 3)
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
    odds = np.exp(scores - scores.max(-1, keepdims=True))
    return (odds / odds.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(x), -1)


def _linear(x: np.ndarray, name: str) -> np.ndarray:
    return x @ _weights()[f"{name}.weight"].T + _weights()[f"{name}.bias"]


def _norm(x: np.ndarray, name: str) -> np.ndarray:
    centred = x - x.mean(1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
    return scaled * _weights()[f"{name}.weight"] + _weights()[f"{name}.bias"]


def _gelu(x: np.ndarray) -> np.ndarray:
    # The error function to 1.5e-7: Abramowitz and Stegun, 7.1.26.
    size = np.abs(x) / np.sqrt(2)
    t = 1 / (1 + 0.3275911 * size)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return 0.5 * x * (1 + np.sign(x) * (1 - series * np.exp(-(size**2))))


def _convolve(x: np.ndarray, name: str, stride: int = 1) -> np.ndarray:
    """Convolve x [T, C] with a stored kernel [N, C, K], or with one per channel [C, 1, K]; both ends padded with 0."""
    kernel, bias = _weights()[f"{name}.weight"], _weights()[f"{name}.bias"]
    size = kernel.shape[2]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((size // 2, size // 2), (0, 0))), size, axis=0)[
        ::stride
    ]
    pattern = "tck,ck->tc" if kernel.shape[1] == 1 < x.shape[1] else "tck,nck->tn"
    return np.einsum(pattern, windows, kernel[:, 0] if pattern.endswith(">tc") else kernel, optimize=True) + bias
