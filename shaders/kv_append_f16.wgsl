// cache_k[(length - T + t) mod S] = k[t]; cache_v[(length - T + t) mod S] = v[t]
// bindings: k [T, G, D] f32; v [T, G, D] f32; cache_k [S, G, D] f16; cache_v [S, G, D] f16; length [1] i32
// work: one lane per two neighbours of a key and its value (D is even), in strides of the grid

struct Params { T: u32, S: u32, G: u32, D: u32 }

@group(0) @binding(0) var<storage, read> k: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> v: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> cache_k: array<u32>;
@group(0) @binding(3) var<storage, read_write> cache_v: array<u32>;
@group(0) @binding(4) var<storage, read> length: array<i32>;
@group(0) @binding(5) var<uniform> params: Params;

const WG: u32 = 256u;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let width = params.G * params.D / 2u;
  let first = u32(length[0]) - params.T;
  for (var i = id.x; i < params.T * width; i += groups.x * WG) {
    let row = (first + i / width) % params.S;
    cache_k[row * width + i % width] = pack2x16float(k[i]);
    cache_v[row * width + i % width] = pack2x16float(v[i]);
  }
}
