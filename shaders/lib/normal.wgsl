// upper_tail: the probability that a normal variable exceeds x >= 0, erfc(x / sqrt 2) / 2, relative error below 4e-6.
// erfc(z) exp(z^2) / t is a polynomial of t = 1 / (1 + 0.4 z), fitted to 6e-8 (relative) on 0 <= z <= 10.

fn upper_tail(x: f32) -> f32 {
  let z = min(x, 13.0) * 0.7071067811865476;
  let t = 1.0 / (1.0 + 0.4 * z);
  var sum = 0.041254334;
  sum = sum * t - 0.14032543;
  sum = sum * t + 0.08399982;
  sum = sum * t + 0.08795036;
  sum = sum * t + 0.07976587;
  sum = sum * t + 0.19338936;
  sum = sum * t + 0.20188853;
  sum = sum * t + 0.22644298;
  sum = sum * t + 0.22563423;
  return 0.5 * t * sum * exp(-z * z);
}
