// load_item, int8_products: the row of int8_row times weight rows by integer dot products. A team of TEAM lanes
// multiplies the ROWS weight rows of one item after the other, ITEMS of them: the fewer workgroups, the fewer
// round the row anew. The weights of the next item are under way while the sums of this one are added up. The caller
// defines WG, TEAM, ROWS, ITEMS, MOST, w_q: array<vec4<u32>> (16 int8 each), w_d: array<u32> (the f16 scales of two
// blocks of 32 per word), chunk_place(item, r, chunk) (where w_q holds 16 values of row r), finish(item, totals) (which
// one lane calls) and the libs int8_row and linked_sum. Rows are multiples of 64 values, whole words of scales: linked
// lanes of a team load each of them once and shuffle. `place` is the lane's in its subgroup.

const TEAMS: u32 = WG / TEAM;
const CHUNKS: u32 = MOST / 16u / TEAM;
const JOINED: u32 = min(LINKED, TEAM); // lanes whose sums need no workgroup memory
const PARTS: u32 = TEAM / JOINED;
const STEP: u32 = 1u + 3u * min(LINKED / TEAM, 1u); // chunks per word of scales that a lane loads
const WORDS: u32 = (CHUNKS + STEP - 1u) / STEP;
const BUFFERS: u32 = 2u - 1u / ITEMS; // of sums: one is filled while the other is read

var<workgroup> team_parts: array<f32, BUFFERS * ROWS * WG / 4u>;

var<private> weight_quants: array<array<vec4<u32>, CHUNKS>, ROWS>;
var<private> weight_scales: array<array<u32, WORDS>, ROWS>;

fn load_item(item: u32, length: u32, lane: u32) {
  let last = length / 16u - 1u;
  for (var r = 0u; r < ROWS; r++) {
    for (var k = 0u; k < WORDS; k++) {
      weight_scales[r][k] = w_d[chunk_place(item, r, min(STEP * (k * TEAM + lane % TEAM), last)) / 4u];
    }
    for (var c = 0u; c < CHUNKS; c++) {
      weight_quants[r][c] = w_q[chunk_place(item, r, min(c * TEAM + lane % TEAM, last))];
    }
  }
}

fn int8_products(first: u32, items: u32, length: u32, lane: u32, place: u32) {
  let team = lane / TEAM;
  let member = lane % TEAM;
  for (var i = 0u; i < ITEMS; i++) {
    let base = first + i * TEAMS;
    if (base >= items) {
      break;
    }
    var totals: array<f32, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
      totals[r] = 0.0;
      for (var c = 0u; c < CHUNKS; c++) {
        let chunk = c * TEAM + member;
        let quants = weight_quants[r][c];
        var sum = dot4I8Packed(quants.x, row_words[chunk]);
        sum += dot4I8Packed(quants.y, row_words[PLANE + chunk]);
        sum += dot4I8Packed(quants.z, row_words[2u * PLANE + chunk]);
        sum += dot4I8Packed(quants.w, row_words[3u * PLANE + chunk]);
        var scales = weight_scales[r][c / STEP];
        if (STEP > 1u) {
          scales = subgroupShuffle(scales, place - member + c % STEP * (TEAM / STEP) + member / STEP);
        }
        totals[r] += f32(sum) * row_scales[chunk] * unpack2x16float(scales >> (member * 8u & 16u)).x;
      }
    }
    if (i + 1u < ITEMS) {
      load_item(min(base + TEAMS + team, items - 1u), length, lane);
    }
    for (var r = 0u; r < ROWS; r++) {
      totals[r] = linked_sum(totals[r], JOINED);
    }
    if (PARTS > 1u) {
      let sums = (i % BUFFERS * TEAMS + team) * ROWS;
      for (var r = 0u; r < ROWS; r++) {
        if (member % JOINED == 0u) {
          team_parts[(sums + r) * PARTS + member / JOINED] = totals[r];
        }
        totals[r] = 0.0;
      }
      workgroupBarrier();
      for (var r = 0u; r < ROWS; r++) {
        for (var n = 0u; n < PARTS; n++) {
          totals[r] += team_parts[(sums + r) * PARTS + n];
        }
      }
    }
    if (member == 0u && base + team < items) {
      finish(base + team, totals);
    }
  }
}
