//! Makes inputs from seeds: flipped bits, cut ends, spliced parts, changed lengths.

/// Bytes that no input exceeds.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// Values that lengths and counts are set to.
const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    31,
    32,
    33,
    64,
    65,
    127,
    128,
    255,
    256,
    32_767,
    32_768,
    65_535,
    65_536,
    100_000,
    100_001,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0xffff_ffff_ffff_ffff,
];
/// Text that parsers treat in ways of their own.
const WORDS: &[&[u8]] = &[
    b"---\n",
    b"\n",
    b"\r\n",
    b": ",
    b"- ",
    b"&a ",
    b"*a",
    b"!!",
    b"<<: ",
    b"\"",
    b"'",
    b"[",
    b"]",
    b"{",
    b"}",
    b"**",
    b"/",
    b"..",
    b".git",
    b"\\",
    b"\0",
    b"[attr]",
    b" filter=lfs",
    b"refs/heads/",
    b"refs/pr/",
    b"@{",
    b".lock",
    b"100644 ",
    b"40000 ",
    b"parent ",
    b"author ",
    b"gpgsig ",
    b"size ",
    b"sha256:",
    b"\xff",
    b"\xe2\x80\x8c",
    b"\xef\xbb\xbf",
    b"null",
    b"-0",
    b"1e9",
    b"9007199254740992",
];

/// A small generator of numbers; what it gives depends on its seed alone.
pub(crate) struct Xorshift(u64);

impl Xorshift {
    /// Begins a sequence of its own for each seed.
    pub(crate) fn new(seed: u64) -> Self {
        // Seeds that are neighbours would give sequences that are.
        let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((mixed ^ (mixed >> 31)).max(1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`, which is at least 1.
    fn below(&mut self, end: usize) -> usize {
        let below = self.next() % end as u64;
        usize::try_from(below).expect("below a usize")
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Makes inputs from seeds.
pub(crate) struct Mutator<'a> {
    seeds: &'a [Vec<u8>],
}

impl<'a> Mutator<'a> {
    /// From at least one seed.
    pub(crate) fn new(seeds: &'a [Vec<u8>]) -> Self {
        Self { seeds }
    }

    /// The input that this sequence determines.
    pub(crate) fn input(&self, random: &mut Xorshift) -> Vec<u8> {
        let mut input = if random.below(32) == 0 {
            let length = random.below(200);
            (0..length)
                .map(|_| random.next().to_le_bytes()[0])
                .collect()
        } else {
            random.pick(self.seeds).clone()
        };
        for _ in 0..=random.below(6) {
            self.mutate(&mut input, random);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Xorshift) {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(64)).min(input.len());
        match random.below(9) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = random.next().to_le_bytes()[0],
            2 => input.truncate(at),
            3 => drop(input.drain(at..end)),
            4 => {
                let again = input[at..end].to_vec();
                let times = random.below(4) + 1;
                input.splice(at..at, again.repeat(times));
            }
            5 => {
                let other = random.pick(self.seeds);
                let start = random.below(other.len() + 1);
                input.splice(at.., other[start..].iter().copied());
            }
            6 => {
                let word = *random.pick(WORDS);
                input.splice(at..at, word.iter().copied());
            }
            7 => {
                let word = random.pick(WORDS);
                let times = random.below(300);
                input.splice(at..end, word.repeat(times));
            }
            _ => {
                let number = random.pick(NUMBERS).to_le_bytes();
                let size = *random.pick(&[1, 2, 4, 8]);
                let end = (at + size).min(input.len());
                input[at..end].copy_from_slice(&number[..end - at]);
            }
        }
    }
}
