// product_few: one output of 256 neighbouring rows of a one-dimensional convolution, a row per lane, for so few outputs that
// a tile would stand empty. Eight channels at a time of the rows that the workgroup sees lie in workgroup memory. The
// caller defines params (J, I, stride, dilation), finish(u, n, value) and the libs stream_quad and quad_* (weight_quad).

const SPAN: u32 = 448u; // rows that a workgroup may see, 255 * stride + (J - 1) * dilation + 1
const PITCH: u32 = 9u; // eight channels and one of padding, so that neighbouring rows lie in different banks

var<workgroup> seen: array<f32, SPAN * PITCH>;

fn product_few(first_u: u32, n: u32, lane: u32, U: u32) {
  let span = 255u * params.stride + (params.J - 1u) * params.dilation + 1u;
  let quads = params.I / 4u;
  var sum = 0.0;
  for (var start = 0u; start < quads; start += 2u) {
    for (var i = lane; i < 2u * span; i += 256u) {
      let quad = start + i % 2u;
      let loaded = stream_quad(first_u * params.stride + i / 2u, min(quad, quads - 1u));
      let value = select(vec4<f32>(), loaded, quad < quads);
      let at = i / 2u * PITCH + i % 2u * 4u;
      seen[at] = value.x;
      seen[at + 1u] = value.y;
      seen[at + 2u] = value.z;
      seen[at + 3u] = value.w;
    }
    workgroupBarrier();
    for (var tap = 0u; tap < params.J; tap++) {
      let at = (lane * params.stride + tap * params.dilation) * PITCH;
      let row = (n * params.J + tap) * quads;
      let left = weight_quad(row + start);
      let right = weight_quad(row + min(start + 1u, quads - 1u));
      sum += dot(left, vec4<f32>(seen[at], seen[at + 1u], seen[at + 2u], seen[at + 3u]));
      sum += dot(right, vec4<f32>(seen[at + 4u], seen[at + 5u], seen[at + 6u], seen[at + 7u]));
    }
    workgroupBarrier();
  }
  if (first_u + lane < U) {
    finish(first_u + lane, n, sum);
  }
}
