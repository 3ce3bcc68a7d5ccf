// y[t, n] = a[t, n] for t < M, else b[t - M, n]
// bindings: a [M, N] f32; b [T, N] f32; y [M + T, N] f32
// work: lane i writes y[i], y[i + lanes], ..

struct Params { M: u32, T: u32, N: u32 }

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let border = params.M * params.N;
  let count = border + params.T * params.N;
  for (var i = id.x; i < count; i += groups.x * 256u) {
    if (i < border) {
      y[i] = a[i];
    } else {
      y[i] = b[i - border];
    }
  }
}
