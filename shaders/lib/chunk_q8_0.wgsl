// weight_chunk: values 16 i .. 16 i + 15 of the bound rows of w, q8_0: half a block. The caller binds w_q: array<vec4<u32>>
// (16 int8 each) and w_d: array<u32> (the f16 scales of two blocks of 32 values per word).

const CHUNK: u32 = 4u;

fn weight_chunk(i: u32) -> array<vec4<f32>, CHUNK> {
  let quants = w_q[i];
  let scales = unpack2x16float(w_d[i / 4u]);
  let scale = select(scales.x, scales.y, (i & 2u) != 0u);
  return array<vec4<f32>, CHUNK>(
    scale * vec4<f32>(unpack4xI8(quants.x)),
    scale * vec4<f32>(unpack4xI8(quants.y)),
    scale * vec4<f32>(unpack4xI8(quants.z)),
    scale * vec4<f32>(unpack4xI8(quants.w)),
  );
}
