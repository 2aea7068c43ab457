//! A keyed 64-bit digest of a few words: multiply, fold, mix. It needs nothing that a BPF program does not have.
//!
//! It is no cryptographic hash. Against somebody who sees only which of his packets were reported, a secret key is
//! enough to keep selection unsteerable in practice; against one who sees digests it is not.

/// A secret for digests. Two observation points that compare reports need the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key {
    select: u64,
    name: u64,
}

impl std::fmt::Debug for Key {
    /// The secret stays one.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// Both seeds from one secret.
    pub const fn new(secret: [u64; 2]) -> Self {
        Self { select: finish(secret[0] ^ MULTIPLIER), name: finish(secret[1].rotate_left(32) ^ !MULTIPLIER) }
    }

    /// Both digests of the same words.
    pub fn digest(&self, words: &[u64]) -> Digest {
        Digest { select: digest(self.select, words), name: digest(self.name, words) }
    }
}

/// What a packet's invariant content becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    /// Compared with a [`super::Threshold`].
    pub select: u64,
    /// Names the packet. Among `n` packets that are told apart at one time, two different ones have the same name with
    /// probability n²/2^65: 3e-8 for a million.
    pub name: u64,
}

/// The fractional part of the golden ratio, odd.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// The digest of some words under a seed. The number of words is part of it.
pub const fn digest(seed: u64, words: &[u64]) -> u64 {
    let mut state = seed ^ (words.len() as u64).wrapping_mul(MULTIPLIER);
    let mut i = 0;
    while i < words.len() {
        state = (state ^ words[i]).wrapping_mul(MULTIPLIER);
        state ^= state >> 32;
        state = state.wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(29);
        i += 1;
    }
    finish(state)
}

/// Each bit of the result depends on each bit of the input (the last steps of splitmix64).
const fn finish(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Octets as words, little-endian, the last filled up with zeros; what does not fit into `N` words is left out.
pub fn words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut words = [0; N];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut octets = [0; 8];
        octets[..chunk.len()].copy_from_slice(chunk);
        *word = u64::from_le_bytes(octets);
    }
    words
}
