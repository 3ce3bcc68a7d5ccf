"""The vision tower: patches of images and videos to merged tokens, and deepstack rows for the first Thinker layers.

    patches [P, C] -> linear -> + interpolated position table -> blocks with attention inside each picture
      -> merger: LayerNorm, 2 x 2 patches side by side, linear, GELU, linear -> [P / 4, D]
    and after chosen blocks a merger of its own -> deepstack [P / 4, D] each

Patches come block by block (see io/patches.py), so that the four patches of a merged token are neighbouring rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from omni_rt import ops
from omni_rt.errors import InputError
from omni_rt.models.qwen3_omni.config_sections import VisionEncoderConfig
from omni_rt.models.qwen3_omni.positions import Grid
from omni_rt.quant import cut_rows
from omni_rt.results import VisionTokens
from omni_rt.tensor import Tensor
from omni_rt.weights import Weights

EPSILON = 1e-6

MOST_PATCHES = 16384
"""Patches of a video that are encoded at once, whole pictures: they do not see each other."""
MOST_ROWS = 4096
"""Rows that pass the first and the wide layers at once: 70 MB at full size, where a large picture would make 800."""

Linear = tuple[Tensor, Tensor]


def patch_coordinates(grid: Grid, merge: int) -> np.ndarray:
    """Return the row and column of every patch of a grid in sequence order, int [P, 2]."""
    time, height, width = grid
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    picture = np.stack([rows, columns], axis=-1).reshape(height // merge, merge, width // merge, merge, 2)
    return np.tile(picture.transpose(0, 2, 1, 3, 4).reshape(-1, 2), (time, 1))


def interpolated_positions(table: np.ndarray, grid: Grid, merge: int) -> np.ndarray:
    """Return the position rows [P, N] of a grid: the square table [S * S, N], stretched corner to corner, bilinear."""
    side = round(len(table) ** 0.5)
    coordinates = patch_coordinates((1, *grid[1:]), merge)
    total = np.zeros((len(coordinates), table.shape[1]), np.float32)
    scaled, low, high = [], [], []
    for axis, extent in enumerate(grid[1:]):
        source = np.linspace(0, side - 1, extent, dtype=np.float32)[coordinates[:, axis]]
        below = source.astype(np.int64)
        scaled.append(source - below.astype(np.float32))
        low.append(below)
        high.append(np.minimum(below + 1, side - 1))
    for y, weight_y in ((low[0], 1 - scaled[0]), (high[0], scaled[0])):
        for x, weight_x in ((low[1], 1 - scaled[1]), (high[1], scaled[1])):
            total += table[y * side + x] * (weight_y * weight_x)[:, None]
    return np.tile(total, (grid[0], 1))


def in_pieces(count: int, layer: Callable[[slice], Tensor]) -> Tensor:
    """Return the rows that a layer makes of `count` rows, few at a time."""
    pieces = [layer(slice(start, start + MOST_ROWS)) for start in range(0, count, MOST_ROWS)]
    while len(pieces) > 1:  # by twos, so that a row is copied log2(pieces) times
        joined = [ops.concat_rows(first, second) for first, second in zip(pieces[::2], pieces[1::2], strict=False)]
        pieces = joined + pieces[2 * len(joined) :]
    return pieces[0]


class VisionBlock:
    """One pre-norm block: self-attention within a picture, then a tanh-GELU feed-forward."""

    def __init__(self, weights: Weights, config: VisionEncoderConfig) -> None:
        width, wide = config.width, config.feed_forward
        self.config = config
        self.norm1, self.norm2 = (weights.norm(name, width) for name in ("norm1", "norm2"))
        # Query, key and value rows lie one after the other in one stored matrix.
        packed = weights.rows("attn.qkv.weight", 3 * width, width)
        biases = weights.array("attn.qkv.bias", 3 * width)
        self.query, self.key, self.value = (
            (weights.place_linear(cut_rows(packed, i, i + width)), weights.place_exact(biases[None, i : i + width]))
            for i in (0, width, 2 * width)
        )
        self.output = weights.affine("attn.proj", width, width)
        self.wide = weights.affine("mlp.linear_fc1", wide, width)
        self.narrow = weights.affine("mlp.linear_fc2", width, wide)

    def __call__(self, x: Tensor, table: Tensor, length: Tensor, picture: int) -> Tensor:
        """Run the block over patches x [P, N] of pictures of `picture` patches each."""
        heads, head_dim = self.config.heads, self.config.head_dim
        normed = ops.layer_norm(x, *self.norm1, epsilon=EPSILON)
        query, key, value = (
            ops.matmul_add(normed, *linear).reshape(-1, heads, head_dim)
            for linear in (self.query, self.key, self.value)
        )
        query, key = ops.rope(query, table), ops.rope(key, table)
        mixed = ops.attention(query, key, value, length, scale=head_dim**-0.5, causal=False, block=picture)
        x = ops.add(x, ops.matmul_add(mixed.reshape(len(x), -1), *self.output))
        return in_pieces(len(x), lambda rows: self.feed_forward(x[rows]))

    def feed_forward(self, x: Tensor) -> Tensor:
        """Add the feed-forward to rows x [T, N], each by itself."""
        normed = ops.layer_norm(x, *self.norm2, epsilon=EPSILON)
        return ops.add(x, ops.matmul_add(ops.gelu_tanh(ops.matmul_add(normed, *self.wide)), *self.narrow))


class Merger:
    """Joins neighbouring patches to a token; the norm comes before the join in the last one, after it in deepstack."""

    def __init__(self, weights: Weights, config: VisionEncoderConfig, *, norm_joined: bool) -> None:
        self.joined = config.width * config.merge**2
        self.norm_joined = norm_joined
        self.norm = weights.norm("ln_q", self.joined if norm_joined else config.width)
        self.first = weights.affine("mlp.0", self.joined, self.joined)
        self.second = weights.affine("mlp.2", config.output_width, self.joined)

    def __call__(self, x: Tensor) -> Tensor:
        """Return tokens [P / 4, D] of patches x [P, N]."""
        x = x.reshape(-1, self.joined) if self.norm_joined else x
        normed = ops.layer_norm(x, *self.norm, epsilon=EPSILON).reshape(-1, self.joined)
        return ops.matmul_add(ops.gelu(ops.matmul_add(normed, *self.first)), *self.second)


class VisionEncoder:
    """The vision tower of Qwen3-Omni; names follow the checkpoint under `thinker.visual.`."""

    def __init__(self, weights: Weights, config: VisionEncoderConfig) -> None:
        self.config = config
        self.device = weights.device
        kernel = weights.array(
            "patch_embed.proj.weight", config.width, config.channels, config.temporal_patch, config.patch, config.patch
        )
        self.patch_embed = (
            weights.place_half(np.ascontiguousarray(kernel).reshape(config.width, -1)),
            weights.exact("patch_embed.proj.bias", config.width).reshape(1, config.width),
        )
        self.positions = np.asarray(weights.array("pos_embed.weight", config.positions, config.width), np.float32)
        self.blocks = [VisionBlock(weights.at(f"blocks.{i}."), config) for i in range(config.layers)]
        self.merger = Merger(weights.at("merger."), config, norm_joined=False)
        self.deepstack = [
            Merger(weights.at(f"merger_list.{j}."), config, norm_joined=True)
            for j in range(len(config.deepstack_layers))
        ]
        quarter = config.head_dim // 4
        omega = (1 / config.rope_theta ** (np.arange(quarter, dtype=np.float32) / np.float32(quarter))).astype(
            np.float32
        )
        axes = np.zeros((2, 2 * quarter), np.float32)
        axes[0, :quarter] = axes[1, quarter:] = omega
        self.frequencies = weights.place_exact(axes)
        weights.done()

    def __call__(self, pixels: np.ndarray, grid: Grid) -> VisionTokens:
        """Encode one image or video: patches float32 [P, C] of a grid (time, height, width).

        Raises InputError when the patches do not fill the grid.
        """
        config, pixels = self.config, np.asarray(pixels)
        if len(grid) != 3:
            raise InputError(f"the grid of an image or video is {grid}, expected (time, height, width)")
        time, height, width = (int(extent) for extent in grid)
        if (
            min(time, height, width) < 1
            or pixels.shape != (time * height * width, config.patch_values)
            or height % config.merge
            or width % config.merge
        ):
            raise InputError(
                f"the vision encoder takes patches [{time * height * width}, {config.patch_values}] for the grid "
                f"{(time, height, width)} (sides in multiples of {config.merge}), got {list(pixels.shape)}"
            )
        picture = height * width
        steps = max(1, MOST_PATCHES // picture)
        parts = [
            self._encode(pixels[start * picture : (start + steps) * picture], (min(steps, time - start), height, width))
            for start in range(0, time, steps)
        ]
        if len(parts) == 1:
            return parts[0]
        taps = zip(*(part.deepstack for part in parts), strict=True)
        return VisionTokens(
            np.concatenate([part.embeddings for part in parts]), [np.concatenate(rows) for rows in taps]
        )

    def _encode(self, pixels: np.ndarray, grid: Grid) -> VisionTokens:
        config, merge = self.config, self.config.merge
        x = in_pieces(len(pixels), lambda rows: ops.matmul_add(self.device.tensor(pixels[rows]), *self.patch_embed))
        x = ops.add(x, self.device.tensor(interpolated_positions(self.positions, grid, merge)))
        angles = ops.angles(self.device.tensor(patch_coordinates(grid, merge).astype(np.float32)), self.frequencies)
        length = self.device.tensor(np.array([len(x)], np.int32))
        deepstack = []
        for index, block in enumerate(self.blocks):
            x = block(x, angles, length, grid[1] * grid[2])
            if index in config.deepstack_layers:
                merger = self.deepstack[config.deepstack_layers.index(index)]
                deepstack.append(merger(x))
        return VisionTokens(self.merger(x).numpy(), [rows.numpy() for rows in deepstack])
