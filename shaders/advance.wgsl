// tokens = chosen, tokens[0 .. R - 2]; position[0, a] += 1; length += 1
// bindings: tokens [R] i32; position [1, A] f32; length [1] i32; chosen [1] i32
// work: one workgroup; lane r moves one token, R <= 32; lanes stride over the axes

struct Params { R: u32, A: u32 }

@group(0) @binding(0) var<storage, read_write> tokens: array<i32>;
@group(0) @binding(1) var<storage, read_write> position: array<f32>;
@group(0) @binding(2) var<storage, read_write> length: array<i32>;
@group(0) @binding(3) var<storage, read> chosen: array<i32>;
@group(0) @binding(4) var<uniform> params: Params;

const WG: u32 = 32u;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
  var moved = chosen[0];
  if (lane > 0u && lane < params.R) {
    moved = tokens[lane - 1u];
  }
  storageBarrier();
  if (lane < params.R) {
    tokens[lane] = moved;
  }
  for (var a = lane; a < params.A; a += WG) {
    position[a] += 1.0;
  }
  if (lane == 0u) {
    length[0] += 1;
  }
}
