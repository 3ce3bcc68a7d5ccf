// y[t, v] = (seen[v] > 0 ? (logits[t, v] < 0 ? logits[t, v] * penalty : logits[t, v] / penalty) : logits[t, v]) + bias[v]
// bindings: logits [T, V] f32; seen [V] i32; bias [V] f32; y [T, V] f32
// work: one lane per logit, in strides of the grid

struct Params { T: u32, V: u32, penalty: f32 }

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> seen: array<i32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

const WG: u32 = 256u;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  for (var i = id.x; i < params.T * params.V; i += groups.x * WG) {
    let token = i % params.V;
    let logit = logits[i];
    let punished = select(logit / params.penalty, logit * params.penalty, logit < 0.0);
    y[i] = select(logit, punished, seen[token] > 0) + bias[token];
  }
}
