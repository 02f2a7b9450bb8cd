//! A hash of all that happened in a simulation: two runs are the same to the byte where it is.

use std::fmt;

/// An odd number without a pattern (2^64 divided by the golden ratio).
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// A running hash of every event. Fast, not cryptographic: it tells runs apart that differ, not runs that were forged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trace(u64);

impl Trace {
    pub(super) fn new(seed: u64) -> Trace {
        let mut trace = Trace(FACTOR);
        trace.mix(seed);
        trace
    }

    /// The hash as a number.
    pub fn value(self) -> u64 {
        self.0
    }

    /// Takes one word in.
    pub(super) fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(FACTOR);
        self.0 = (product as u64 ^ (product >> 64) as u64).wrapping_add(FACTOR);
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The hash of some bytes.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    let mut trace = Trace(FACTOR);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        trace.mix(chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }
    trace.mix(chunks.remainder().iter().fold(bytes.len() as u64, |word, byte| word << 8 | u64::from(*byte)));
    trace.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_and_the_length_count() {
        let bytes: Vec<u8> = (0..40).collect();
        for length in 0..bytes.len() {
            assert_ne!(digest(&bytes[..length]), digest(&bytes[..=length]), "{length}");
            let mut other = bytes.clone();
            other[length] ^= 1;
            assert_ne!(digest(&other), digest(&bytes), "{length}");
        }
        assert_eq!(digest(b"the same on any machine"), 12_378_351_723_018_888_602, "pinned");
    }
}
