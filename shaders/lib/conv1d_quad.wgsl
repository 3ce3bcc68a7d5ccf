// gather_quad: values 4 q .. of the window, [J, I], that output row u of a one-dimensional convolution of one group sees. The
// caller defines params (I, stride, dilation) and takes the lib stream_quad.

fn gather_quad(u: u32, q: u32) -> vec4<f32> {
  let tap = q / (params.I / 4u);
  return stream_quad(u * params.stride + tap * params.dilation, q - tap * (params.I / 4u));
}
