// norm_gemv: PRODUCTS weight rows times row t of x, divided by its root mean square and multiplied by g, in one pass: the sum
// of squares grows beside the products, and its root divides them at the end. Totals land in norm_totals, to be scaled by
// norm_scale(). The caller defines WG, PRODUCTS, OUTPUTS = PRODUCTS + 1, x and g (arrays of vec4), params (K, epsilon),
// product_row(r) (a bound row of w) and these libs: chunk_* (weight_chunk), sum_outputs.

var<workgroup> norm_totals: array<f32, OUTPUTS>;

fn norm_gemv(t: u32, lane: u32) {
  let chunks = params.K / (4u * CHUNK);
  var sums: array<f32, OUTPUTS>;
  for (var chunk = lane; chunk < chunks; chunk += WG) {
    var weights: array<array<vec4<f32>, CHUNK>, PRODUCTS>;
    for (var r = 0u; r < PRODUCTS; r++) {
      weights[r] = weight_chunk(product_row(r) * chunks + chunk);
    }
    for (var i = 0u; i < CHUNK; i++) {
      let value = x[(t * chunks + chunk) * CHUNK + i];
      let weighed = value * g[chunk * CHUNK + i];
      for (var r = 0u; r < PRODUCTS; r++) {
        sums[r] += dot(weights[r][i], weighed);
      }
      sums[PRODUCTS] += dot(value, value);
    }
  }
  let total = sum_outputs(&sums, lane);
  if (lane < OUTPUTS) {
    norm_totals[lane] = total;
  }
  workgroupBarrier();
}

fn norm_scale() -> f32 {
  return inverseSqrt(norm_totals[PRODUCTS] / f32(params.K) + params.epsilon);
}
