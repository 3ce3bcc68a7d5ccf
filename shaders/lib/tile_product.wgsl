// tile_product: adds the products of 16 * TM rows of x with 16 * TN weight rows to sums, TM x TN of them for each of 16 x 16
// lanes, through tiles of 16 values of K in workgroup memory. Lane l gets rows 16 i + l / 16 of x, 16 j + l % 16 of w. The
// caller defines TM, TN, x (array of vec4), x_row(m), w_row(n) (rows to read, always within bounds) and the lib quad_*
// (weight_quad). `quads` is K / 4. Ends with a barrier.

// A row of a tile is four vec4 and one of padding, so that the 16 lanes that read 16 rows hit different banks.
const TILE_STRIDE: u32 = 5u;

var<workgroup> x_tile: array<vec4<f32>, 16u * TM * TILE_STRIDE>;
var<workgroup> w_tile: array<vec4<f32>, 16u * TN * TILE_STRIDE>;

fn tile_product(sums: ptr<function, array<array<f32, TN>, TM>>, quads: u32, lane: u32) {
  for (var start = 0u; start < quads; start += 4u) {
    let inside = start + lane % 4u < quads;
    let quad = min(start + lane % 4u, quads - 1u);
    for (var i = lane; i < 64u * TM; i += 256u) {
      let value = x[x_row(i / 4u) * quads + quad];
      x_tile[i / 4u * TILE_STRIDE + i % 4u] = select(vec4<f32>(), value, inside);
    }
    for (var i = lane; i < 64u * TN; i += 256u) {
      w_tile[i / 4u * TILE_STRIDE + i % 4u] = weight_quad(w_row(i / 4u) * quads + quad);
    }
    workgroupBarrier();
    for (var q = 0u; q < 4u; q++) {
      var right: array<vec4<f32>, TN>;
      for (var j = 0u; j < TN; j++) {
        right[j] = w_tile[(j * 16u + lane % 16u) * TILE_STRIDE + q];
      }
      for (var i = 0u; i < TM; i++) {
        let left = x_tile[(i * 16u + lane / 16u) * TILE_STRIDE + q];
        for (var j = 0u; j < TN; j++) {
          (*sums)[i][j] += dot(left, right[j]);
        }
      }
    }
    workgroupBarrier();
  }
}
