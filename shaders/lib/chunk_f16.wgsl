// weight_chunk: values 8 i .. 8 i + 7 of the bound rows of w, f16. The caller binds w: array<vec4<u32>>, eight values each.

const CHUNK: u32 = 2u;

fn weight_chunk(i: u32) -> array<vec4<f32>, CHUNK> {
  let words = w[i];
  return array<vec4<f32>, CHUNK>(
    vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y)),
    vec4<f32>(unpack2x16float(words.z), unpack2x16float(words.w)),
  );
}
