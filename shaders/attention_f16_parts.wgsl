// With w = exp(scale * q[t, h] . k[p mod S, g] - peak), peak the largest score, g = h / (H / G), and p over the run i of
// `parts` runs of the visible positions: sums[t, h, i] = sum_p w v[p mod S, g]; stats[t, h, i] = peak, sum_p w
// bindings: q [T, H, D] f32; k [S, G, D] f16; v [S, G, D] f16; length [1] i32; sums [T, H, parts, D] f32;
//   stats [T, H, parts, 2] f32
// work: workgroup (i, g, t); see lib/attention_run. D a multiple of 4, up to 32 * STEPS; REPEAT is H / G or more, up to 8
// lib: attention_run, attention_heads, attention_rows, visible

struct Params {
  T: u32, H: u32, D: u32, S: u32, G: u32,
  scale: f32, causal: u32, window: u32, block: u32, parts: u32,
}

@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> v: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> length: array<i32>;
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> stats: array<vec2<f32>>;
@group(0) @binding(6) var<uniform> params: Params;

const REPEAT: u32 = 8u; // tune
const STEPS: u32 = 4u; // tune

fn key_at(i: u32) -> vec4<f32> {
  return vec4(unpack2x16float(k[i].x), unpack2x16float(k[i].y));
}

fn value_at(i: u32) -> vec4<f32> {
  return vec4(unpack2x16float(v[i].x), unpack2x16float(v[i].y));
}

fn store_sum(row: u32, part: u32, column: u32, sum: vec4<f32>, total: f32) {
  sums[(row * params.parts + part) * params.D / 4u + column] = sum;
}

fn store_stats(row: u32, part: u32, peak: f32, total: f32) {
  stats[row * params.parts + part] = vec2(peak, total);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  attend_run(group.x, params.parts, group.y, group.z, lane);
}
