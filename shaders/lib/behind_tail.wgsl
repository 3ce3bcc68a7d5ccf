// behind_tail: `rows` become the P rows of `tail`, then T rows of made(t, c); the tail becomes the last P of them. The first
// workgroups take 16 channels of the tail each, in turns of 16 rows: what a turn reads lies behind all that turns before it
// wrote. The others take 1024 values of x at a time. The caller defines made(t, c), binds tail and rows as arrays of f32
// and defines params (T, P, C).

const COLUMNS: u32 = 16u;

fn tail_groups() -> u32 {
  return (params.C + COLUMNS - 1u) / COLUMNS;
}

fn move_tail(first: u32, lane: u32) {
  let c = first + lane % COLUMNS;
  for (var start = 0u; start < params.P; start += 256u / COLUMNS) {
    let p = start + lane / COLUMNS;
    let mine = p < params.P && c < params.C;
    var next = 0.0;
    if (mine) {
      rows[p * params.C + c] = tail[p * params.C + c];
      if (p + params.T < params.P) {
        next = tail[(p + params.T) * params.C + c];
      } else {
        next = made(p + params.T - params.P, c);
      }
    }
    storageBarrier();
    if (mine) {
      tail[p * params.C + c] = next;
    }
  }
}

fn behind_tail(group: u32, groups: u32, lane: u32) {
  if (group < tail_groups()) {
    move_tail(group * COLUMNS, lane);
    return;
  }
  let count = params.T * params.C;
  for (var start = (group - tail_groups()) * 1024u; start < count; start += (groups - tail_groups()) * 1024u) {
    for (var i = start + lane; i < min(start + 1024u, count); i += 256u) {
      rows[params.P * params.C + i] = made(i / params.C, i % params.C);
    }
  }
}
