// table[t, j] = cos(theta), table[t, J + j] = sin(theta), theta = sum_a p[t, a] * f[a, j]
// bindings: p [T, A] f32; f [A, J] f32; table [T, 2 J] f32
// work: one lane per angle, in strides of the grid
// lib: trigonometry

struct Params { T: u32, A: u32, J: u32 }

@group(0) @binding(0) var<storage, read> p: array<f32>;
@group(0) @binding(1) var<storage, read> f: array<f32>;
@group(0) @binding(2) var<storage, read_write> table: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

const WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  for (var i = id.x; i < params.T * params.J; i += groups.x * WG) {
    let t = i / params.J;
    let j = i % params.J;
    var theta = 0.0;
    for (var a = 0u; a < params.A; a++) {
      theta += p[t * params.A + a] * f[a * params.J + j];
    }
    let turned = cosine_sine(theta);
    table[t * 2u * params.J + j] = turned.x;
    table[t * 2u * params.J + params.J + j] = turned.y;
  }
}
