// weight_value: value i of the bound rows of w, f16. The caller binds w: array<u32>, two values per word.

fn weight_value(i: u32) -> f32 {
  let pair = unpack2x16float(w[i / 2u]);
  return select(pair.x, pair.y, (i & 1u) == 1u);
}
