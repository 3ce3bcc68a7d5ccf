// tiled: the outputs of rows first_t .. of x, LINES * TM of them, and weight rows first_row .. of the bound range,
// COLUMNS * TN of them, by one workgroup of 256 lanes. The caller defines TM, TN, params (T, K, row_start, row_count),
// finish(t, n, value) and the lib tile_product with a quad_* and x (array of vec4), or int8_tile and what it takes.

var<private> first_t: u32;
var<private> first_row: u32;

fn x_row(m: u32) -> u32 {
  return min(first_t + m, params.T - 1u);
}

fn w_row(n: u32) -> u32 {
  return min(first_row + n, params.row_count - 1u);
}

fn tiled(lane: u32) {
  var sums: array<array<f32, TN>, TM>;
  tile_product(&sums, params.K / 4u, params.T - first_t, lane);
  for (var i = 0u; i < TM; i++) {
    for (var j = 0u; j < TN; j++) {
      let t = first_t + i * LINES + lane / COLUMNS;
      let row = first_row + j * COLUMNS + lane % COLUMNS;
      if (t < params.T && row < params.row_count) {
        finish(t, params.row_start + row, sums[i][j]);
      }
    }
  }
}
