// multiply_tile: adds the products of the tiles of int8_tile to sums, x with two int8 for each value: x = d * (256 q + rest), d
// of 32 values each.

const PLANES: u32 = 2u;
alias Scale = f32;

fn multiply_tile(sums: ptr<function, array<array<f32, TN>, TM>>, rows: u32, line: u32, column: u32) {
  for (var b = 0u; b < STEP; b++) {
    var right: array<vec4<u32>, 2u * TN>;
    var right_scale: array<f32, TN>;
    for (var j = 0u; j < TN; j++) {
      right[2u * j] = w_tile[2u * b * W_STRIDE + j * COLUMNS + column];
      right[2u * j + 1u] = w_tile[(2u * b + 1u) * W_STRIDE + j * COLUMNS + column];
      right_scale[j] = w_scales[b * W_ROWS + j * COLUMNS + column];
    }
    for (var i = 0u; i < TM; i++) {
      if (i * LINES < rows) {
        let row = 4u * b * X_STRIDE + i * LINES + line;
        let low = x_tile[row];
        let low_rest = x_tile[row + X_STRIDE];
        let high = x_tile[row + 2u * X_STRIDE];
        let high_rest = x_tile[row + 3u * X_STRIDE];
        let scale = x_scales[b * X_ROWS + i * LINES + line];
        for (var j = 0u; j < TN; j++) {
          let wholes = add_dot(add_dot(0, low, right[2u * j]), high, right[2u * j + 1u]);
          let product = add_dot(add_dot(256 * wholes, low_rest, right[2u * j]), high_rest, right[2u * j + 1u]);
          (*sums)[i][j] += right_scale[j] * (scale * f32(product));
        }
      }
    }
  }
}
