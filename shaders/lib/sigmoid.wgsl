// sigmoid: 1 / (1 + exp(-v)) without overflow: exp is only taken of values that are not positive.

fn sigmoid(v: f32) -> f32 {
  let small = exp(-abs(v));
  return select(small, 1.0, v >= 0.0) / (1.0 + small);
}
