// ids[t] = the index of the largest x[t, n], the lowest among equals
// bindings: x [T, N] f32; ids [T] i32
// work: one workgroup per row, in strides of the grid; 256 lanes stride over N, then halve the candidates

struct Params { T: u32, N: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> ids: array<i32>;
@group(0) @binding(2) var<uniform> params: Params;

const WG: u32 = 256u;
const BATCH: u32 = 16u; // loads in flight per lane

var<workgroup> values: array<f32, WG>;
var<workgroup> indices: array<u32, WG>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var t = group.x; t < params.T; t += groups.x) {
    let row = t * params.N;
    var index = min(lane, params.N - 1u);
    var value = x[row + index];
    for (var base = lane; base < params.N; base += WG * BATCH) {
      var batch: array<f32, BATCH>;
      for (var n = 0u; n < BATCH; n++) {
        batch[n] = x[row + min(base + n * WG, params.N - 1u)];
      }
      for (var n = 0u; n < BATCH; n++) {
        if (batch[n] > value) {
          value = batch[n];
          index = min(base + n * WG, params.N - 1u);
        }
      }
    }
    values[lane] = value;
    indices[lane] = index;
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
      ids[t] = i32(indices[0]);
    }
    workgroupBarrier();
  }
}
