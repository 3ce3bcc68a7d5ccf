// sum_teams: scores of a chunk of keys from what the 8 lanes of a team found. The caller declares REPEAT, CHUNK and LANES = 256.

const TEAM: u32 = 8u;
const TEAMS: u32 = 32u;
const PITCH: u32 = 257u; // one more than LANES, so that the sums of a team lie in different banks

var<workgroup> scores: array<f32, CHUNK * REPEAT>;
var<workgroup> shares: array<f32, PITCH * REPEAT>;

// Sum what the lanes of each team found for a key of the half n of a chunk, and keep the scores, hidden keys far below all.
fn sum_teams(products: array<f32, REPEAT>, n: u32, count: u32, lane: u32) {
  for (var r = 0u; r < REPEAT; r++) {
    shares[r * PITCH + lane] = products[r];
  }
  workgroupBarrier();
  if (lane < TEAMS * REPEAT) {
    let place = lane % REPEAT * PITCH + lane / REPEAT * TEAM;
    var score = 0.0;
    for (var s = 0u; s < TEAM; s++) {
      score += shares[place + s];
    }
    scores[n * TEAMS * REPEAT + lane] = select(-3.4e38, score, n * TEAMS + lane / REPEAT < count);
  }
  workgroupBarrier();
}
