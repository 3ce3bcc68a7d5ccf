// q[i] = round(x[i] / d[i / 32]), d[b] = max |x[i]| of block b / 127: rows rounded to int8 in blocks of 32, for kernels that
// multiply int8 with int8
// bindings: x [B, 32] f32; q [B, 32] int8; d [B] f32
// work: a lane rounds a block, in strides of the grid

struct Params { B: u32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> q: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> d: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

const WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  for (var block = id.x; block < params.B; block += groups.x * WG) {
    var values: array<vec4<f32>, 8>;
    var largest = vec4<f32>();
    for (var i = 0u; i < 8u; i++) {
      values[i] = x[block * 8u + i];
      largest = max(largest, abs(values[i]));
    }
    let most = max(max(largest.x, largest.y), max(largest.z, largest.w));
    let scale = most / 127.0;
    // Below the normal numbers the inverse would overflow; such a block is as good as zero.
    let inverse = select(0.0, 1.0 / scale, most > 1e-35);
    var words: array<u32, 8>;
    for (var i = 0u; i < 8u; i++) {
      words[i] = pack4xI8(vec4<i32>(round(values[i] * inverse)));
    }
    q[block * 2u] = vec4<u32>(words[0], words[1], words[2], words[3]);
    q[block * 2u + 1u] = vec4<u32>(words[4], words[5], words[6], words[7]);
    d[block] = scale;
  }
}
