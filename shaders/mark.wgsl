// seen[ids[t]] = 1
// bindings: seen [V] i32; ids [T] i32
// work: one lane per id, in strides of the grid

struct Params { T: u32, V: u32 }

@group(0) @binding(0) var<storage, read_write> seen: array<i32>;
@group(0) @binding(1) var<storage, read> ids: array<i32>;
@group(0) @binding(2) var<uniform> params: Params;

const WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  for (var t = id.x; t < params.T; t += groups.x * WG) {
    let token = u32(ids[t]);
    if (token < params.V) {
      seen[token] = 1;
    }
  }
}
