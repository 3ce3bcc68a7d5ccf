// peaks[t, i] = the largest x[t, n] of run i of `parts` runs of the row, places[t, i] = its n, the lowest among equals
// bindings: x [T, N] f32; peaks [T, parts] f32; places [T, parts] i32
// work: workgroup (i, t); 256 lanes stride over the run by four, then halve the candidates
// lib: largest, keep_largest

struct Params { N: u32, parts: u32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> peaks: array<f32>;
@group(0) @binding(2) var<storage, read_write> places: array<i32>;
@group(0) @binding(3) var<uniform> params: Params;

const WG: u32 = 256u;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let run = (params.N + params.parts - 1u) / params.parts;
  let row = group.y * params.N;
  let first = min(group.x * run, params.N - 1u); // a run behind the last reads its end again
  largest(row + first, row + min(first + run, params.N), lane);
  if (lane == 0u) {
    peaks[group.y * params.parts + group.x] = values[0];
    places[group.y * params.parts + group.x] = i32(indices[0] - row);
  }
}
