// weight_quad: values 4 i .. 4 i + 3 of the bound rows of w, f32. The caller binds w: array<vec4<f32>>.

fn weight_quad(i: u32) -> vec4<f32> {
  return w[i];
}
