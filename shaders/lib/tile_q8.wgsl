// multiply_tile: adds the products of the tiles of int8_tile to sums, x with one int8 for each value: x = d * q, d of 16 values
// each.

const PLANES: u32 = 1u;
alias Scale = vec2<f32>;

// Beside 1.5 * 2^23 a whole number lies in the low bits of a float: faster than conversions, of which a GPU does few at once.
const ZERO: i32 = 0x4b400000;

fn as_float(sum: i32) -> f32 {
  return bitcast<f32>(sum) - 12582912.0;
}

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
        let low = x_tile[2u * b * X_STRIDE + i * LINES + line];
        let high = x_tile[(2u * b + 1u) * X_STRIDE + i * LINES + line];
        let scale = x_scales[b * X_ROWS + i * LINES + line];
        for (var j = 0u; j < TN; j++) {
          let low_product = as_float(add_dot(ZERO, low, right[2u * j]));
          let high_product = as_float(add_dot(ZERO, high, right[2u * j + 1u]));
          (*sums)[i][j] += right_scale[j] * dot(scale, vec2(low_product, high_product));
        }
      }
    }
  }
}
