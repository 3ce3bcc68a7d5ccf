// ids[t] ~ softmax(logits[t] / temperature), cut to the top k and then to the nucleus p, drawn by walking ids upwards
// bindings: logits [T, V] f32; seed [1] i32; counter [1] i32; ids [T] i32
// work: one workgroup per row, in strides of the grid; see lib/draw
// tune: BATCH loads are in flight per lane, of four logits each
// lib: random, draw, sum, sample_cut, top_bound, sample_few

struct Params { T: u32, V: u32, temperature: f32, top_k: u32, top_p: f32, salt: u32 }

@group(0) @binding(0) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> seed: array<i32>;
@group(0) @binding(2) var<storage, read> counter: array<i32>;
@group(0) @binding(3) var<storage, read_write> ids: array<i32>;
@group(0) @binding(4) var<uniform> params: Params;

const WG: u32 = 256u;
const BATCH: u32 = 8u; // tune

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var t = group.x; t < params.T; t += groups.x) {
    let random = uniform_at(u32(seed[0]), u32(counter[0]), params.salt, t);
    let chosen = draw(t * params.V, random, lane);
    if (lane == 0u) {
      ids[t] = i32(chosen);
    }
  }
}
