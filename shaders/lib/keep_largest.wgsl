// keep_largest: the largest of the WG lanes' values, and the lowest index among equals, in values[0] and indices[0] behind
// a barrier. The caller defines WG, a power of two.

var<workgroup> values: array<f32, WG>;
var<workgroup> indices: array<u32, WG>;

fn keep_largest(value: f32, index: u32, lane: u32) {
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
}
