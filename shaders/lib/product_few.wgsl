// product_few: one output of 64 neighbouring rows of a one-dimensional convolution, four lanes per row, for so few outputs
// that a tile would stand empty. 32 channels at a time of the rows that the workgroup sees lie in workgroup memory. The
// caller defines params (J, I, stride, dilation), finish(u, n, value) and the libs stream_quad and quad_* (weight_quad).

const SPAN: u32 = 110u; // rows that a workgroup may see, 63 * stride + (J - 1) * dilation + 1
const PITCH: u32 = 37u; // 32 channels and some padding, so that neighbouring rows lie in different banks

var<workgroup> seen: array<f32, SPAN * PITCH>;

fn product_few(first_u: u32, n: u32, lane: u32, U: u32) {
  let span = 63u * params.stride + (params.J - 1u) * params.dilation + 1u;
  let quads = params.I / 4u;
  let row = lane % 64u;
  let part = lane / 64u;
  var sum = 0.0;
  for (var start = 0u; start < quads; start += 8u) {
    for (var i = lane; i < 8u * span; i += 256u) {
      let quad = start + i % 8u;
      let loaded = stream_quad(first_u * params.stride + i / 8u, min(quad, quads - 1u));
      let value = select(vec4<f32>(), loaded, quad < quads);
      let at = i / 8u * PITCH + i % 8u * 4u;
      seen[at] = value.x;
      seen[at + 1u] = value.y;
      seen[at + 2u] = value.z;
      seen[at + 3u] = value.w;
    }
    workgroupBarrier();
    let quad = start + 2u * part;
    for (var tap = 0u; tap < params.J; tap++) {
      let at = (row * params.stride + tap * params.dilation) * PITCH + 8u * part;
      let weights = (n * params.J + tap) * quads;
      let left = weight_quad(weights + min(quad, quads - 1u));
      let right = weight_quad(weights + min(quad + 1u, quads - 1u));
      sum += dot(left, vec4<f32>(seen[at], seen[at + 1u], seen[at + 2u], seen[at + 3u]));
      sum += dot(right, vec4<f32>(seen[at + 4u], seen[at + 5u], seen[at + 6u], seen[at + 7u]));
    }
    workgroupBarrier();
  }
  seen[lane] = sum;
  workgroupBarrier();
  if (lane < 64u && first_u + lane < U) {
    finish(first_u + lane, n, seen[lane] + seen[lane + 64u] + seen[lane + 128u] + seen[lane + 192u]);
  }
}
