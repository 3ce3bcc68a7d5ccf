// y[t, h] = sum_p softmax_p(scale * q[t, h] . k[p mod S, g]) * v[p mod S, g], g = h / (H / G), p over the visible positions
// bindings: q [T, H, D] f32; k [S, G, D] f32; v [S, G, D] f32; length [1] i32; y [T, H, D] f32
// work: workgroup (g, t); see lib/attention_run. D a multiple of 4, up to 32 * STEPS; REPEAT is H / G or more, up to 8
// lib: attention_run, attention_heads, attention_rows, visible

struct Params {
  T: u32, H: u32, D: u32, S: u32, G: u32,
  scale: f32, causal: u32, window: u32, block: u32,
}

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> length: array<i32>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(5) var<uniform> params: Params;

const REPEAT: u32 = 8u; // tune
const STEPS: u32 = 4u; // tune

fn key_at(i: u32) -> vec4<f32> {
  return k[i];
}

fn value_at(i: u32) -> vec4<f32> {
  return v[i];
}

fn store_sum(row: u32, part: u32, column: u32, sum: vec4<f32>, total: f32) {
  y[row * params.D / 4u + column] = sum / max(total, 1e-38);
}

fn store_stats(row: u32, part: u32, peak: f32, total: f32) {}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  attend_run(0u, 1u, group.x, group.y, lane);
}
