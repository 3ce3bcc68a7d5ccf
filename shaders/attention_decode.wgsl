// y[t, h] = sum_p softmax_p(scale * q[t, h] . k[p mod S, g]) * v[p mod S, g], g = h / (H / G), p over the visible positions
// bindings: q [T, H, D] f32; k [S, G, D] f32; v [S, G, D] f32; length [1] i32; y [T, H, D] f32
// work: workgroup (h, t), in strides of the grid over t; see lib/attention_decode. D a multiple of 4, up to 256
// lib: attention_decode, max, sum, visible

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

const WG: u32 = 256u;

fn key_at(i: u32) -> vec4<f32> {
  return k[i];
}

fn value_at(i: u32) -> vec4<f32> {
  return v[i];
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var t = group.y; t < params.T; t += groups.y) {
    attend(t, group.x, lane);
  }
}
