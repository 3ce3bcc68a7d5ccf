// weight_value: value i of the bound rows of w, f32. The caller binds w: array<f32>.

fn weight_value(i: u32) -> f32 {
  return w[i];
}
