// ids[t] = places[t, i] of the largest peaks[t, i], the lowest among equals
// bindings: peaks [T, P] f32; places [T, P] i32; ids [T] i32
// work: one workgroup per row; 256 lanes hold a run each, P up to 256, and halve the candidates
// lib: keep_largest

struct Params { P: u32 }

@group(0) @binding(0) var<storage, read> peaks: array<f32>;
@group(0) @binding(1) var<storage, read> places: array<i32>;
@group(0) @binding(2) var<storage, read_write> ids: array<i32>;
@group(0) @binding(3) var<uniform> params: Params;

const WG: u32 = 256u;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let own = group.x * params.P + min(lane, params.P - 1u);
  keep_largest(peaks[own], u32(places[own]), lane);
  if (lane == 0u) {
    ids[group.x] = i32(indices[0]);
  }
}
