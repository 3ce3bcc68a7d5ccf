// y[t, n] = r[t, n] + sum_a weights[t, a] * d[t, a, n]
// bindings: d [T, A, N] f32; weights [T, A] f32; r [T, N] f32; y [T, N] f32
// work: lane i of column j writes y[t, i] for t = j, j + groups.y, ..

struct Params { T: u32, A: u32, N: u32 }

@group(0) @binding(0) var<storage, read> d: array<f32>;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read> r: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  for (var t = id.y; t < params.T; t += groups.y) {
    if (id.x < params.N) {
      var sum = r[t * params.N + id.x];
      for (var slot = t * params.A; slot < (t + 1u) * params.A; slot++) {
        sum += weights[slot] * d[slot * params.N + id.x];
      }
      y[t * params.N + id.x] = sum;
    }
  }
}
