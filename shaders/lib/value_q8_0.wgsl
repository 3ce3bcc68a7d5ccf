// weight_value: value i of the bound rows of w, q8_0. The caller binds w_q: array<u32> (four int8 per word) and w_d:
// array<u32> (the f16 scales of two blocks of 32 values per word).

fn weight_value(i: u32) -> f32 {
  let scales = unpack2x16float(w_d[i / 64u]);
  let quants = unpack4xI8(w_q[i / 4u]);
  return select(scales.x, scales.y, (i & 32u) != 0u) * f32(quants[i & 3u]);
}
