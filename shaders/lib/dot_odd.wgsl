// dot_odd: the outputs of ROWS weight rows, first.. of the bound range, for one row of x, whatever K is: 64 lanes stride
// over single values. The caller defines WG, ROWS, OUTPUTS = ROWS, x (array of f32), params (K, row_start, row_count),
// finish(t, n, value) and these libs: value_* (weight_value), sum_outputs.

fn dot_odd(t: u32, first: u32, lane: u32) {
  var sums: array<f32, OUTPUTS>;
  for (var k = lane; k < params.K; k += WG) {
    let value = x[t * params.K + k];
    for (var r = 0u; r < ROWS; r++) {
      sums[r] += value * weight_value(min(first + r, params.row_count - 1u) * params.K + k);
    }
  }
  let total = sum_outputs(&sums, lane);
  if (lane < ROWS && first + lane < params.row_count) {
    finish(t, params.row_start + first + lane, total);
  }
}
