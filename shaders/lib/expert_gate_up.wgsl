// expert_gate_up: one workgroup of WG lanes computes ROWS hidden values of one row of x in one of its experts: their gate
// and up rows at once, a lane taking chunks of CHUNK vec4 of K. The caller defines WG, ROWS, OUTPUTS = 2 * ROWS, x (array
// of vec4), experts, h, params (K, I, A, row_start, row_count) and these libs: chunk_*, sum_outputs, sigmoid.

var<workgroup> totals: array<f32, OUTPUTS>;

fn expert_gate_up(t: u32, slot: u32, first: u32, lane: u32) {
  let chunks = params.K / (4u * CHUNK);
  // Rows before the bound range wrap around, so that one comparison with row_count finds those outside on either side.
  let gate = u32(experts[t * params.A + slot]) * 2u * params.I + first - params.row_start;
  var sums: array<f32, OUTPUTS>;
  for (var chunk = lane; chunk < chunks; chunk += WG) {
    var weights: array<array<vec4<f32>, CHUNK>, OUTPUTS>;
    for (var r = 0u; r < ROWS; r++) {
      weights[r] = weight_chunk(min(gate + r, params.row_count - 1u) * chunks + chunk);
      weights[ROWS + r] = weight_chunk(min(gate + params.I + r, params.row_count - 1u) * chunks + chunk);
    }
    for (var i = 0u; i < CHUNK; i++) {
      let value = x[(t * chunks + chunk) * CHUNK + i];
      for (var r = 0u; r < OUTPUTS; r++) {
        sums[r] += dot(weights[r][i], value);
      }
    }
  }
  let total = sum_outputs(&sums, lane);
  if (lane < OUTPUTS) {
    totals[lane] = total;
  }
  workgroupBarrier();
  if (lane < ROWS && first + lane < params.I) {
    let i = (t * params.A + slot) * params.I + first + lane;
    // Where the gate row and the up row lie in different ranges, the gate's comes first and leaves its product in h.
    var before = totals[lane];
    if (gate + lane >= params.row_count) {
      before = h[i];
    }
    if (gate + params.I + lane < params.row_count) {
      h[i] = before * sigmoid(before) * totals[ROWS + lane];
    } else if (gate + lane < params.row_count) {
      h[i] = before;
    }
  }
  workgroupBarrier();
}
