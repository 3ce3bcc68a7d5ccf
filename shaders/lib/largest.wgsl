// largest: the largest of x[first .. end) by WG lanes, and the first place where it lies, in values[0] and indices[0]
// behind a barrier. The caller defines WG and x (array of vec4), and takes the lib keep_largest.

const BATCH: u32 = 8u; // loads in flight per lane

fn largest(first: u32, end: u32, lane: u32) {
  // The run may start and end inside a group of four: what lies outside it is passed over.
  let last = (end + 3u) / 4u;
  var index = min(first + lane, end - 1u);
  var value = -3.4e38; // below which no value is told from another
  for (var base = first / 4u + lane; base < last; base += WG * BATCH) {
    var batch: array<vec4<f32>, BATCH>;
    for (var n = 0u; n < BATCH; n++) {
      batch[n] = x[min(base + n * WG, last - 1u)];
    }
    for (var n = 0u; n < BATCH; n++) {
      // The first largest of the four, then against the best so far.
      let places = vec4(4u * (base + n * WG)) + vec4(0u, 1u, 2u, 3u);
      let four = select(vec4(-3.4e38), batch[n], (places >= vec4(first)) & (places < vec4(end)));
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
  keep_largest(value, index, lane);
}
