// weight_chunk: values 4 i .. 4 i + 3 of the bound rows of w, so that neighbouring lanes read neighbouring vec4 of x: what
// counts where several rows of x are read for each weight. The caller names a lib quad_* (weight_quad).

const CHUNK: u32 = 1u;

fn weight_chunk(i: u32) -> array<vec4<f32>, CHUNK> {
  return array<vec4<f32>, CHUNK>(weight_quad(i));
}
