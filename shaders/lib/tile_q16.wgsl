// multiply_tile: adds the products of the tiles of int8_tile to sums, x with two int8 for each value: x = d * (256 q + rest).
// Chunk by chunk, whose operands take half the registers of a block's. The two products of a chunk join as floats: in one
// integer beside 1.5 * 2^23 there is no room for both.

const PLANES: u32 = 2u;

fn multiply_tile(sums: ptr<function, array<array<f32, TN>, TM>>, rows: u32, line: u32, column: u32) {
  for (var chunk = 0u; chunk < W_PARTS; chunk++) {
    var right: array<vec4<u32>, TN>;
    var right_scale: array<f32, TN>;
    for (var j = 0u; j < TN; j++) {
      right[j] = w_tile[chunk * W_STRIDE + j * COLUMNS + column];
      right_scale[j] = w_scales[chunk / 2u * W_ROWS + j * COLUMNS + column];
    }
    for (var i = 0u; i < TM; i++) {
      if (i * LINES < rows) {
        let left = x_tile[2u * chunk * X_STRIDE + i * LINES + line];
        let rest = x_tile[(2u * chunk + 1u) * X_STRIDE + i * LINES + line];
        let scale = x_scales[chunk / 2u * X_ROWS + i * LINES + line][chunk % 2u];
        for (var j = 0u; j < TN; j++) {
          let product = fma(256.0, dot_part(left, right[j]), dot_part(rest, right[j]));
          (*sums)[i][j] += right_scale[j] * (scale * product);
        }
      }
    }
  }
}
