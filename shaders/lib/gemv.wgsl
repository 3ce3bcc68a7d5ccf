// gemv: the outputs of ROWS weight rows, first.. of the bound range, for T_TILE rows of x, first_t.., by one workgroup of WG
// lanes. The caller defines WG, ROWS, T_TILE, OUTPUTS = ROWS * T_TILE, params (T, row_start, row_count), finish(t, n, value)
// and these libs: gemv_sums, sum_outputs.

fn gemv(first_t: u32, first: u32, lane: u32) {
  var sums: array<f32, OUTPUTS>;
  gemv_sums(&sums, first_t, first, lane, WG);
  let total = sum_outputs(&sums, lane);
  let t = first_t + lane / ROWS;
  let row = first + lane % ROWS;
  if (lane < OUTPUTS && t < params.T && row < params.row_count) {
    finish(t, params.row_start + row, total);
  }
}
