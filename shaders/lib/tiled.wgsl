// tiled: the outputs of rows first_t .. of x, 16 * TM of them, and weight rows first_row .. of the bound range, 16 * TN of
// them, by one workgroup of 256 lanes. The caller defines TM, TN, x (array of vec4), params (T, K, row_start, row_count),
// finish(t, n, value) and these libs: tile_product, quad_*.

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
  tile_product(&sums, params.K / 4u, lane);
  for (var i = 0u; i < TM; i++) {
    for (var j = 0u; j < TN; j++) {
      let t = first_t + i * 16u + lane / 16u;
      let row = first_row + j * 16u + lane % 16u;
      if (t < params.T && row < params.row_count) {
        finish(t, params.row_start + row, sums[i][j]);
      }
    }
  }
}
