// ids[t] = the index of the largest x[t, n], the lowest among equals
// bindings: x [T, N] f32; ids [T] i32
// work: one workgroup per row, in strides of the grid; 256 lanes stride over the row by four, then halve the candidates

struct Params { T: u32, N: u32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> ids: array<i32>;
@group(0) @binding(2) var<uniform> params: Params;

const WG: u32 = 256u;
const BATCH: u32 = 8u; // loads in flight per lane

var<workgroup> values: array<f32, WG>;
var<workgroup> indices: array<u32, WG>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var t = group.x; t < params.T; t += groups.x) {
    // A row may start and end inside a group of four: what lies outside it is passed over.
    let row = t * params.N;
    let end = row + params.N;
    let last = (end + 3u) / 4u;
    var index = row + min(lane, params.N - 1u);
    var value = -3.4e38; // below which no value is told from another
    for (var base = row / 4u + lane; base < last; base += WG * BATCH) {
      var batch: array<vec4<f32>, BATCH>;
      for (var n = 0u; n < BATCH; n++) {
        batch[n] = x[min(base + n * WG, last - 1u)];
      }
      for (var n = 0u; n < BATCH; n++) {
        // The first largest of the four, then against the best so far.
        let places = vec4(4u * (base + n * WG)) + vec4(0u, 1u, 2u, 3u);
        let four = select(vec4(-3.4e38), batch[n], (places >= vec4(row)) & (places < vec4(end)));
        let low = select(four.x, four.y, four.y > four.x);
        let low_at = select(places.x, places.y, four.y > four.x);
        let high = select(four.z, four.w, four.w > four.z);
        let high_at = select(places.z, places.w, four.w > four.z);
        let largest = select(low, high, high > low);
        if (largest > value) {
          value = largest;
          index = select(low_at, high_at, high > low);
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
      ids[t] = i32(indices[0] - row);
    }
    workgroupBarrier();
  }
}
