// uniform_at: a number in [0, 1) with 24 random bits, a hash of four words; the same as `uniform` in omni_rt/ops/sampling.py.

fn uniform_at(seed: u32, counter: u32, salt: u32, row: u32) -> f32 {
  var words = array<u32, 4>(seed, counter, salt, row);
  var value = 0u;
  for (var i = 0u; i < 4u; i++) {
    value = (value ^ words[i]) + 0x9e3779b9u;
    value = (value ^ (value >> 16u)) * 0x7feb352du;
    value = (value ^ (value >> 15u)) * 0x846ca68bu;
    value ^= value >> 16u;
  }
  return f32(value >> 8u) / 16777216.0;
}
