// y[t, h] = sum_p softmax_p(scale * q[t, h] . k[p mod S, g]) * v[p mod S, g], g = h / (H / G), p over the visible positions
// bindings: q [T, H, D] f32; k [S, G, D] f32; v [S, G, D] f32; length [1] i32; y [T, H, D] f32
// work: workgroup (i, h) computes tile groups.x - 1 - i of up to QUERIES queries, as the last see most; see
//   lib/attention_prefill. D a multiple of 4, up to 256
// tune: QUERIES (32 or 64) scored, of which a lane adds up the values of ROWS: best with 128 / (D / 4) * ROWS = QUERIES
// lib: attention_prefill, attention_tile, visible

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

const ROWS: u32 = 16u; // tune
const QUERIES: u32 = 64u; // tune

fn key_at(i: u32) -> vec4<f32> {
  return k[i];
}

fn value_at(i: u32) -> vec4<f32> {
  return v[i];
}

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  attend_tile(groups.x - 1u - group.x, group.y, lane);
}
