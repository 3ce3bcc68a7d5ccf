// expert_down: one workgroup of WG lanes computes ROWS outputs of one row: the products with all of its experts as one long
// sum over slots and chunks of CHUNK vec4 of I. The caller defines WG, ROWS, OUTPUTS = ROWS, h (array of vec4), experts,
// weights, r, y, params (I, N, A, row_start, row_count) and these libs: chunk_* (weight_chunk), sum_outputs.

fn expert_down(t: u32, first: u32, lane: u32) {
  let chunks = params.I / (4u * CHUNK);
  var sums: array<f32, OUTPUTS>;
  for (var i = lane; i < params.A * chunks; i += WG) {
    let slot = t * params.A + i / chunks;
    let chunk = i % chunks;
    // Rows before the bound range wrap around, so that one comparison with row_count finds those outside on either side.
    let start = u32(experts[slot]) * params.N + first - params.row_start;
    var rows: array<array<vec4<f32>, CHUNK>, ROWS>;
    for (var o = 0u; o < ROWS; o++) {
      rows[o] = weight_chunk(min(start + o, params.row_count - 1u) * chunks + chunk);
    }
    var parts = array<f32, ROWS>(); // naga sets a `var` without a value to zero only once, not in each iteration
    for (var v = 0u; v < CHUNK; v++) {
      let value = h[(slot * chunks + chunk) * CHUNK + v];
      for (var o = 0u; o < ROWS; o++) {
        parts[o] += dot(rows[o][v], value);
      }
    }
    for (var o = 0u; o < ROWS; o++) {
      sums[o] += select(0.0, weights[slot], start + o < params.row_count) * parts[o];
    }
  }
  let total = sum_outputs(&sums, lane);
  if (lane < ROWS && first + lane < params.N) {
    let i = t * params.N + first + lane;
    // The first row range starts from the residual, those after it from what the ranges before have summed.
    var before = r[i];
    if (params.row_start > 0u) {
      before = y[i];
    }
    y[i] = before + total;
  }
  workgroupBarrier();
}
