// activation, round_normed_row, norm_scale: the row that int8_row rounds is row t of x times g, whose products, times
// norm_scale, are those of the normalised row; norm_scale is right behind round_normed_row. The caller sets t, binds x
// and g as arrays of vec4, defines params (K, epsilon) and takes the libs int8_row and linked_sum.

var<workgroup> square_parts: array<f32, WG / 4u>;

var<private> t: u32;
var<private> row_squares: f32;

fn activation(v: u32, seen: f32) -> vec4<f32> {
  let value = x[t * params.K / 4u + v] * seen;
  row_squares += dot(value, value);
  return value * g[v];
}

// round_row, and the sums of squares of linked lanes.
fn round_normed_row(lane: u32) {
  let squares = linked_sum(row_squares, LINKED);
  if (lane % LINKED == 0u) {
    square_parts[lane / LINKED] = squares;
  }
  round_row(lane);
}

fn norm_scale() -> f32 {
  var squares = 0.0;
  for (var i = 0u; i < WG / LINKED; i++) {
    squares += square_parts[i];
  }
  return inverseSqrt(squares / f32(params.K) + params.epsilon);
}
