// tile_product: adds the products of 16 * TM rows of x with 16 * TN weight rows to sums, TM x TN of them for each of 16 x 16
// lanes, through tiles of 32 values of K in workgroup memory. Lane l gets rows 16 i + l / 16 of x, 16 j + l % 16 of w. The
// caller defines TM, TN, x (array of vec4), x_row(m), w_row(n) (rows to read, always within bounds) and the lib quad_*
// (weight_quad). Of x only the first `rows` count; `quads` is K / 4. Ends with a barrier.

const LINES: u32 = 16u;
const COLUMNS: u32 = 16u;

const X_LOADS: u32 = (TM + 1u) / 2u;
const W_LOADS: u32 = (TN + 1u) / 2u;

var<workgroup> x_tile: array<vec4<f32>, 128u * TM>;
var<workgroup> w_tile: array<vec4<f32>, 128u * TN>;

// Eight quads of a row lie permuted by the row's number, so that lanes that read eight rows at once hit different banks.
fn swizzled(row: u32, quad: u32) -> u32 {
  return row * 8u + (quad ^ (row % 8u));
}

fn tile_product(sums: ptr<function, array<array<f32, TN>, TM>>, quads: u32, rows: u32, lane: u32) {
  let column = lane % 16u;
  let line = lane / 16u;
  // A lane loads a quad of rows lane / 8, lane / 8 + 32, ..; those of the next tile are under way while this one is used.
  var next_x: array<vec4<f32>, X_LOADS>;
  var next_w: array<vec4<f32>, W_LOADS>;
  for (var start = 0u; start < quads + 8u; start += 8u) {
    if (start > 0u) {
      for (var i = 0u; i < X_LOADS; i++) {
        if (lane / 8u + 32u * i < 16u * TM) {
          x_tile[swizzled(lane / 8u + 32u * i, lane % 8u)] = next_x[i];
        }
      }
      for (var i = 0u; i < W_LOADS; i++) {
        if (lane / 8u + 32u * i < 16u * TN) {
          w_tile[swizzled(lane / 8u + 32u * i, lane % 8u)] = next_w[i];
        }
      }
      workgroupBarrier();
    }
    if (start < quads) {
      let quad = min(start + lane % 8u, quads - 1u);
      for (var i = 0u; i < X_LOADS; i++) {
        next_x[i] = select(vec4<f32>(), x[x_row(lane / 8u + 32u * i) * quads + quad], start + lane % 8u < quads);
      }
      for (var i = 0u; i < W_LOADS; i++) {
        next_w[i] = weight_quad(w_row(lane / 8u + 32u * i) * quads + quad);
      }
    }
    if (start > 0u) {
      for (var q = 0u; q < 8u; q++) {
        var right: array<vec4<f32>, TN>;
        for (var j = 0u; j < TN; j++) {
          right[j] = w_tile[swizzled(j * 16u + column, q)];
        }
        for (var i = 0u; i < TM; i++) {
          if (i * 16u < rows) {
            let left = x_tile[swizzled(i * 16u + line, q)];
            for (var j = 0u; j < TN; j++) {
              (*sums)[i][j] += dot(left, right[j]);
            }
          }
        }
      }
      workgroupBarrier();
    }
  }
}
