// weight_chunk: values 4 i .. 4 i + 3 of the bound rows of w, f32. The caller binds w: array<vec4<f32>>.

const CHUNK: u32 = 1u;

fn weight_chunk(i: u32) -> array<vec4<f32>, CHUNK> {
  return array<vec4<f32>, CHUNK>(w[i]);
}
