// gemv_sums: adds the products of ROWS weight rows, first.. of the bound range, with T_TILE rows of x, first_t.., to sums
// [T_TILE, ROWS]: the share of one of `lanes` lanes, which takes every lanes-th chunk of CHUNK vec4 of K. The caller
// defines ROWS, T_TILE, OUTPUTS = ROWS * T_TILE, x (array of vec4), params (T, K, row_count) and the lib chunk_*
// (weight_chunk).

fn gemv_sums(sums: ptr<function, array<f32, OUTPUTS>>, first_t: u32, first: u32, lane: u32, lanes: u32) {
  let chunks = params.K / (4u * CHUNK);
  for (var chunk = lane; chunk < chunks; chunk += lanes) {
    // All weights first: their loads are then in flight together, and only one chunk of x is alive at a time.
    var weights: array<array<vec4<f32>, CHUNK>, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
      weights[r] = weight_chunk(min(first + r, params.row_count - 1u) * chunks + chunk);
    }
    for (var t = 0u; t < T_TILE; t++) {
      for (var i = 0u; i < CHUNK; i++) {
        // No branch where T is less than T_TILE: it would keep the loads of the next row of x from starting early.
        let value = x[(min(first_t + t, params.T - 1u) * chunks + chunk) * CHUNK + i];
        for (var r = 0u; r < ROWS; r++) {
          (*sums)[t * ROWS + r] += dot(weights[r][i], value);
        }
      }
    }
  }
}
