// ids[t] = places[t, i] of the largest peaks[t, i], the lowest among equals
// bindings: peaks [T, P] f32; places [T, P] i32; ids [T] i32
// work: one workgroup per row; 256 lanes hold a run each, P up to 256, and halve the candidates

struct Params { P: u32 }

@group(0) @binding(0) var<storage, read> peaks: array<f32>;
@group(0) @binding(1) var<storage, read> places: array<i32>;
@group(0) @binding(2) var<storage, read_write> ids: array<i32>;
@group(0) @binding(3) var<uniform> params: Params;

const WG: u32 = 256u;

var<workgroup> values: array<f32, WG>;
var<workgroup> indices: array<i32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let own = group.x * params.P + min(lane, params.P - 1u);
  values[lane] = peaks[own];
  indices[lane] = places[own];
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      let other = values[lane + half];
      let at = indices[lane + half];
      if (other > values[lane] || (other == values[lane] && at < indices[lane])) {
        values[lane] = other;
        indices[lane] = at;
      }
    }
    workgroupBarrier();
  }
  if (lane == 0u) {
    ids[group.x] = indices[0];
  }
}
