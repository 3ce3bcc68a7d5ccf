// y[t, h] = sum_p softmax_p(scale * q[t, h] . k[p mod S, g]) * v[p mod S, g]: attention of the queries of
// norm_rope_append, f16
// bindings: qkv [T, M] f32; q_norm [D] f32; k_norm [D] f32; table [T, D] f32; cache_k [S, G, D] f16; cache_v [S, G, D] f16;
//   length [1] i32; y [T, H, D] f32
// work: workgroup g: heads g * REPEAT ..; see lib/attention_step. T is 1, D a multiple of 8, up to 8 * WIDE
// tune: REPEAT heads of a key head per workgroup of LANES; KEYS taken at a time by the WIDE lanes that share a key
// lib: linked_sum, attention_step, slot_lanes, slot_merge, step_row, visible

struct Params {
  S: u32, G: u32, D: u32, H: u32,
  epsilon: f32, scale: f32, window: u32,
}

@group(0) @binding(0) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> q_norm: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k_norm: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> table: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> cache_k: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> cache_v: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read> length: array<i32>;
@group(0) @binding(7) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(8) var<uniform> params: Params;

const REPEAT: u32 = 1u; // tune
const KEYS: u32 = 8u; // tune
const WIDE: u32 = 16u; // tune
const LANES: u32 = 256u; // tune

fn store_sum(head: u32, part: u32, c: u32, sum: vec4<f32>, total: f32) {
  y[head * params.D / 4u + c] = sum / max(total, 1e-38);
}

fn store_stats(head: u32, part: u32, peak: f32, total: f32) {}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  attend_step(0u, 1u, group.x * REPEAT, lane);
}
