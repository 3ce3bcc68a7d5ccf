// y[t] = sum_q x[t, q], the fastest way we know to read memory: what other kernels are compared with
// bindings: x [T, 4 Q] f32; y [T] f32
// work: workgroup t sums row t; a lane keeps four loads of a vec4 under way
// lib: sum

struct Params { T: u32, Q: u32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

const WG: u32 = 256u;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let first = group.x * params.Q;
  let last = params.Q - 1u;
  var sum = vec4<f32>();
  for (var q = lane; q < params.Q; q += 4u * WG) {
    let a = x[first + q];
    let b = x[first + min(q + WG, last)];
    let c = x[first + min(q + 2u * WG, last)];
    let d = x[first + min(q + 3u * WG, last)];
    sum += a + select(vec4<f32>(), b, q + WG <= last);
    sum += select(vec4<f32>(), c, q + 2u * WG <= last) + select(vec4<f32>(), d, q + 3u * WG <= last);
  }
  let total = sum_lanes(dot(sum, vec4<f32>(1.0)), lane);
  if (lane == 0u) {
    y[group.x] = total;
  }
}
