// q[t, h] = rotate(qkv[t, h]); cache_k[row, g] = rotate(qkv[t, H + g]); cache_v[row, g] = qkv[t, H + G + g]
// row = (length - T + t) mod S, rotate turns the pairs (j, j + D/2) by the angles of table[t], H = M / D - 2 G
// bindings: qkv [T, M] f32; table [T, D] f32; cache_k [S, G, D] f16; cache_v [S, G, D] f16; length [1] i32; q [T, H, D] f32
// work: one lane per two neighbouring pairs of a head (D is a multiple of 4), in strides of the grid; places and widths
//   are counted in twos

struct Params { T: u32, M: u32, S: u32, G: u32, D: u32 }

@group(0) @binding(0) var<storage, read> qkv: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> table: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> cache_k: array<u32>;
@group(0) @binding(3) var<storage, read_write> cache_v: array<u32>;
@group(0) @binding(4) var<storage, read> length: array<i32>;
@group(0) @binding(5) var<storage, read_write> q: array<vec2<f32>>;
@group(0) @binding(6) var<uniform> params: Params;

const WG: u32 = 256u;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let width = params.D / 2u;
  let half = width / 2u;
  let heads = params.M / params.D;
  let queries = heads - 2u * params.G;
  let first = u32(length[0]) - params.T;
  for (var i = id.x; i < params.T * heads * half; i += groups.x * WG) {
    let j = i % half;
    let head = i / half % heads;
    let t = i / half / heads;
    let source = t * params.M / 2u + head * width + j;
    let low = qkv[source];
    let high = qkv[source + half];
    let cosine = table[t * width + j];
    let sine = table[t * width + half + j];
    let row = (first + t) % params.S * params.G;
    if (head < queries) {
      let place = (t * queries + head) * width + j;
      q[place] = low * cosine - high * sine;
      q[place + half] = high * cosine + low * sine;
    } else if (head < queries + params.G) {
      let place = (row + head - queries) * width + j;
      cache_k[place] = pack2x16float(low * cosine - high * sine);
      cache_k[place + half] = pack2x16float(high * cosine + low * sine);
    } else {
      let place = (row + head - queries - params.G) * width + j;
      cache_v[place] = pack2x16float(low);
      cache_v[place + half] = pack2x16float(high);
    }
  }
}
