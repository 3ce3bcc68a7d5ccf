// q[t, h] = rotate(norm(qkv[t, h], q_norm)); cache_k[row, g] = rotate(norm(qkv[t, H + g], k_norm))
// cache_v[row, g] = qkv[t, H + G + g]; row = (length - T + t) mod S, H = M / D - 2 G
// norm(x, w) = x / sqrt(mean(x^2) + epsilon) * w; rotate turns the pairs (j, j + D/2) by the angles of table[t]
// bindings: qkv [T, M] f32; q_norm [D] f32; k_norm [D] f32; table [T, D] f32; cache_k [S, G, D] f16;
//   cache_v [S, G, D] f16; length [1] i32; q [T, H, D] f32
// work: workgroup (head, t), in strides of the grid over t; 64 lanes stride over two neighbouring pairs of the head
//   (D is a multiple of 4); places and widths are counted in twos
// lib: sum

struct Params { T: u32, M: u32, S: u32, G: u32, D: u32, epsilon: f32 }

@group(0) @binding(0) var<storage, read> qkv: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> q_norm: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> k_norm: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> table: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> cache_k: array<u32>;
@group(0) @binding(5) var<storage, read_write> cache_v: array<u32>;
@group(0) @binding(6) var<storage, read> length: array<i32>;
@group(0) @binding(7) var<storage, read_write> q: array<vec2<f32>>;
@group(0) @binding(8) var<uniform> params: Params;

const WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let width = params.D / 2u;
  let half = width / 2u;
  let queries = params.M / params.D - 2u * params.G;
  let head = group.x;
  for (var t = group.y; t < params.T; t += groups.y) {
    let source = t * params.M / 2u + head * width;
    var squares = 0.0;
    for (var j = lane; j < width; j += WG) {
      squares += dot(qkv[source + j], qkv[source + j]);
    }
    let factor = 1.0 / sqrt(sum_lanes(squares, lane) / f32(params.D) + params.epsilon);
    let row = (u32(length[0]) - params.T + t) % params.S * params.G;
    for (var j = lane; j < half; j += WG) {
      let low = qkv[source + j];
      let high = qkv[source + half + j];
      let cosine = table[t * width + j] * factor;
      let sine = table[t * width + half + j] * factor;
      if (head < queries) {
        let place = (t * queries + head) * width + j;
        q[place] = low * q_norm[j] * cosine - high * q_norm[half + j] * sine;
        q[place + half] = high * q_norm[half + j] * cosine + low * q_norm[j] * sine;
      } else if (head < queries + params.G) {
        let place = (row + head - queries) * width + j;
        cache_k[place] = pack2x16float(low * k_norm[j] * cosine - high * k_norm[half + j] * sine);
        cache_k[place + half] = pack2x16float(high * k_norm[half + j] * cosine + low * k_norm[j] * sine);
      } else {
        let place = (row + head - queries - params.G) * width + j;
        cache_v[place] = pack2x16float(low);
        cache_v[place + half] = pack2x16float(high);
      }
    }
  }
}
