// rows[p, c] = tail[p, c] for p < P, rows[P + t, c] = x[t, c] + b[c]; then tail[p, c] = rows[T + p, c]
// bindings: x [T, C] f32; b [C] f32; tail [P, C] f32; rows [P + T, C] f32
// work: the first C / 16 workgroups move the tail, the others take 1024 values of x at a time; see lib/behind_tail
// lib: behind_tail

struct Params { T: u32, C: u32, P: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> tail: array<f32>;
@group(0) @binding(3) var<storage, read_write> rows: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

fn made(t: u32, c: u32) -> f32 {
  return x[t * params.C + c] + b[c];
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  behind_tail(group.x, groups.x, lane);
}
