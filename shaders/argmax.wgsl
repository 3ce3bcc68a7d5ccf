// ids[t] = the index of the largest x[t, n], the lowest among equals
// bindings: x [T, N] f32; ids [T] i32
// work: one workgroup per row, in strides of the grid; 256 lanes stride over the row by four, then halve the candidates
// lib: largest, keep_largest

struct Params { T: u32, N: u32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> ids: array<i32>;
@group(0) @binding(2) var<uniform> params: Params;

const WG: u32 = 256u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var t = group.x; t < params.T; t += groups.x) {
    largest(t * params.N, (t + 1u) * params.N, lane);
    if (lane == 0u) {
      ids[t] = i32(indices[0] - t * params.N);
    }
    workgroupBarrier();
  }
}
