// tiled: the outputs of 16 * TM rows of x and 16 * TN weight rows by one workgroup of 16 x 16 lanes, TM x TN each, through
// tiles of 16 values of K in workgroup memory. The caller defines TM, TN, x (array of vec4), params (T, K, row_start,
// row_count), finish(t, n, value) and the lib quad_* (weight_quad).

// A row of a tile is four vec4 and one of padding, so that the 16 lanes that read 16 rows hit different banks.
const TILE_STRIDE: u32 = 5u;

var<workgroup> x_tile: array<vec4<f32>, 16u * TM * TILE_STRIDE>;
var<workgroup> w_tile: array<vec4<f32>, 16u * TN * TILE_STRIDE>;

fn tiled(first_t: u32, first_row: u32, lane: u32) {
  let quads = params.K / 4u;
  let column = lane % 16u;
  let line = lane / 16u;
  var sums: array<array<f32, TN>, TM>;
  for (var start = 0u; start < quads; start += 4u) {
    for (var i = lane; i < 64u * TM; i += 256u) {
      let t = min(first_t + i / 4u, params.T - 1u);
      let quad = start + i % 4u;
      let value = x[t * quads + min(quad, quads - 1u)];
      x_tile[i / 4u * TILE_STRIDE + i % 4u] = select(vec4<f32>(), value, quad < quads);
    }
    for (var i = lane; i < 64u * TN; i += 256u) {
      let row = min(first_row + i / 4u, params.row_count - 1u);
      w_tile[i / 4u * TILE_STRIDE + i % 4u] = weight_quad(row * quads + min(start + i % 4u, quads - 1u));
    }
    workgroupBarrier();
    for (var q = 0u; q < 4u; q++) {
      var right: array<vec4<f32>, TN>;
      for (var j = 0u; j < TN; j++) {
        right[j] = w_tile[(j * 16u + column) * TILE_STRIDE + q];
      }
      for (var i = 0u; i < TM; i++) {
        let left = x_tile[(i * 16u + line) * TILE_STRIDE + q];
        for (var j = 0u; j < TN; j++) {
          sums[i][j] += dot(left, right[j]);
        }
      }
    }
    workgroupBarrier();
  }
  for (var i = 0u; i < TM; i++) {
    for (var j = 0u; j < TN; j++) {
      let t = first_t + i * 16u + line;
      let row = first_row + j * 16u + column;
      if (t < params.T && row < params.row_count) {
        finish(t, params.row_start + row, sums[i][j]);
      }
    }
  }
}
