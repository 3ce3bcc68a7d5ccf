// sums[t, h, i] = sum_p w v[p mod S, g]; stats[t, h, i] = peak, sum_p w: attention_parts of the queries of
// norm_rope_append, f16
// bindings: qkv [T, M] f32; q_norm [D] f32; k_norm [D] f32; table [T, D] f32; cache_k [S, G, D] f16; cache_v [S, G, D] f16;
//   length [1] i32; sums [T, H, parts, D] f32;
//   stats [T, H, parts, 2] f32
// work: workgroup (i, g): heads g * REPEAT ..; see lib/attention_step. T is 1, D a multiple of 8, up to 8 * WIDE
// tune: REPEAT heads of a key head per workgroup of LANES; KEYS taken at a time by the WIDE lanes that share a key
// lib: linked_sum, attention_step, slot_lanes, slot_merge, step_row, visible

struct Params {
  S: u32, G: u32, D: u32, H: u32,
  epsilon: f32, scale: f32, window: u32, parts: u32,
}

@group(0) @binding(0) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> q_norm: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k_norm: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> table: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> cache_k: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> cache_v: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read> length: array<i32>;
@group(0) @binding(7) var<storage, read_write> sums: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> stats: array<vec2<f32>>;
@group(0) @binding(9) var<uniform> params: Params;

const REPEAT: u32 = 1u; // tune
const KEYS: u32 = 8u; // tune
const WIDE: u32 = 16u; // tune
const LANES: u32 = 256u; // tune

fn store_sum(head: u32, part: u32, c: u32, sum: vec4<f32>, total: f32) {
  sums[(head * params.parts + part) * params.D / 4u + c] = sum;
}

fn store_stats(head: u32, part: u32, peak: f32, total: f32) {
  stats[head * params.parts + part] = vec2(peak, total);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  attend_step(group.x, params.parts, group.y * REPEAT, lane);
}
