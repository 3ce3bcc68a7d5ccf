// sine_squared: sin(u)^2 for |u| up to 1e5 with an absolute error of 3e-7, where the built-in sine is only specified near 0.
// The square has the period pi: subtract the nearest multiple of pi, in three parts whose products with it are exact,
// then an odd polynomial on [-pi / 2, pi / 2] (relative error 2e-11 before rounding).

fn sine_squared(u: f32) -> f32 {
  let k = round(u * 0.3183098861837907);
  let r = ((u - k * 3.140625) - k * 0.0009670257568359375) - k * 6.278329465203569e-07;
  let s = r * r;
  var sum = -2.3868527e-8;
  sum = sum * s + 2.7523984e-6;
  sum = sum * s - 0.00019840834;
  sum = sum * s + 0.008333331;
  sum = sum * s - 0.16666667;
  let sine = r + r * s * sum;
  return sine * sine;
}
