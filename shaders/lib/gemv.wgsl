// gemv: the outputs of ROWS weight rows, first.. of the bound range, for up to T_TILE rows of x, by one workgroup of WG
// lanes. A lane takes chunks of CHUNK vec4 of K; each weight is read once. The caller defines WG, ROWS, T_TILE, OUTPUTS =
// ROWS * T_TILE, x (array of vec4), params (T, K, row_start, row_count), finish(t, n, value) and these libs: chunk_*
// (weight_chunk), sum_outputs.

fn gemv(first: u32, lane: u32) {
  var sums: array<f32, OUTPUTS>;
  let chunks = params.K / (4u * CHUNK);
  for (var chunk = lane; chunk < chunks; chunk += WG) {
    // All weights first: their loads are then in flight together, and only one chunk of x is alive at a time.
    var weights: array<array<vec4<f32>, CHUNK>, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
      weights[r] = weight_chunk(min(first + r, params.row_count - 1u) * chunks + chunk);
    }
    for (var t = 0u; t < T_TILE; t++) {
      if (t < params.T) {
        for (var i = 0u; i < CHUNK; i++) {
          let value = x[(t * chunks + chunk) * CHUNK + i];
          for (var r = 0u; r < ROWS; r++) {
            sums[t * ROWS + r] += dot(weights[r][i], value);
          }
        }
      }
    }
  }
  let total = sum_outputs(&sums, lane);
  let row = first + lane % ROWS;
  if (lane < OUTPUTS && lane / ROWS < params.T && row < params.row_count) {
    finish(lane / ROWS, params.row_start + row, total);
  }
}
