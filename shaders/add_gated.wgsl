// y[t, n] = x[t, n] + sigmoid(g[t]) * s[t, n]
// bindings: x [T, N] f32; s [T, N] f32; g [T, 1] f32; y [T, N] f32
// work: lane i of column j writes y[t, i] for t = j, j + groups.y, ..
// lib: sigmoid

struct Params { T: u32, N: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> s: array<f32>;
@group(0) @binding(2) var<storage, read> g: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  for (var t = id.y; t < params.T; t += groups.y) {
    let i = t * params.N + id.x;
    if (id.x < params.N) {
      y[i] = x[i] + sigmoid(g[t]) * s[i];
    }
  }
}
