// weight_quad: values 4 i .. 4 i + 3 of the bound rows of w, q8_0. The caller binds w_q: array<u32> (four int8 per word) and
// w_d: array<u32> (the f16 scales of two blocks of 32 values per word).

fn weight_quad(i: u32) -> vec4<f32> {
  let scales = unpack2x16float(w_d[i / 16u]);
  return select(scales.x, scales.y, (i & 8u) != 0u) * vec4<f32>(unpack4xI8(w_q[i]));
}
