// activation, norm_scale: the row that int8_row rounds is row t of x times g, whose products, times norm_scale, are those of
// the normalised row; norm_scale is right behind one more barrier than round_row. The caller sets t, binds x and g as
// arrays of vec4, defines params (K, epsilon) and takes the lib int8_row.

var<private> t: u32;

fn activation(v: u32, seen: f32) -> vec4<f32> {
  let value = x[t * params.K / 4u + v] * seen;
  row_squares += dot(value, value);
  return value * g[v];
}

fn norm_scale() -> f32 {
  return inverseSqrt(square_sum() / f32(params.K) + params.epsilon);
}
