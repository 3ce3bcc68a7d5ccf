// product_direct: one output by one lane, for small and odd shapes: the sum over `taps` x `inputs` of a gathered value times
// a weight. The caller defines gather(u, n, tap, i), the value that output (u, n) sees, and the lib value_* (weight_value).

fn product_direct(u: u32, n: u32, taps: u32, inputs: u32) -> f32 {
  var sum = 0.0;
  for (var tap = 0u; tap < taps; tap++) {
    let row = (n * taps + tap) * inputs;
    for (var i = 0u; i < inputs; i++) {
      sum += gather(u, n, tap, i) * weight_value(row + i);
    }
  }
  return sum;
}
