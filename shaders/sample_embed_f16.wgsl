// codes[at] = id; x[0, n] = w[start + id, n]; id ~ softmax(logits / temperature), drawn as `sample` does
// bindings: logits [1, V] f32; seed [1] i32; counter [1] i32; codes [K] i32; w [R, N] f16; x [1, N] f32
// work: one workgroup draws, then takes the row
// tune: BATCH loads are in flight per lane, of four logits each
// lib: random, draw, sum, sample_cut, top_bound, sample_few, quad_f16

struct Params { V: u32, N: u32, temperature: f32, top_k: u32, top_p: f32, salt: u32, at: u32, start: u32 }

@group(0) @binding(0) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> seed: array<i32>;
@group(0) @binding(2) var<storage, read> counter: array<i32>;
@group(0) @binding(3) var<storage, read_write> codes: array<i32>;
@group(0) @binding(4) var<storage, read> w: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(6) var<uniform> params: Params;

const WG: u32 = 256u;
const BATCH: u32 = 2u; // tune

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
  let chosen = draw(0u, uniform_at(u32(seed[0]), u32(counter[0]), params.salt, 0u), lane);
  if (lane == 0u) {
    codes[params.at] = i32(chosen);
  }
  let quads = params.N / 4u;
  for (var n = lane; n < quads; n += WG) {
    x[n] = weight_quad((params.start + chosen) * quads + n);
  }
}
