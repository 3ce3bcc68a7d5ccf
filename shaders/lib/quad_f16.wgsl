// weight_quad: values 4 i .. 4 i + 3 of the bound rows of w, f16. The caller binds w: array<vec2<u32>>, four values each.

fn weight_quad(i: u32) -> vec4<f32> {
  let words = w[i];
  return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}
