//! Blocks that describe themselves: every block this tool writes says which run, volume, LBA and
//! write it belongs to, so that a wrong block is *named* (`oracle.md` section 5).
//!
//! Layout, little-endian: magic (4), volume (4), run id (low 64 bits, 8), LBA (8), generation (8),
//! hash of those 32 bytes (8), then a body drawn from that hash. Every byte after the first 40 is
//! a function of the first 40, so the point where a torn block changes hands can be found.
//! Not covered: what a block *should* hold; that is the model's business.

use super::ids::{Role, RunId};
use super::units::Lba;
use std::fmt;

const MAGIC: [u8; 4] = *b"lbA1";
/// Bytes before the body.
const HEADER: usize = 40;

/// What a block says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stamp {
    /// The run that wrote it.
    pub run: RunId,
    /// The volume it was meant for.
    pub volume: Role,
    /// The LBA it was meant for.
    pub lba: Lba,
    /// Number of the write inside the run, ascending.
    pub generation: u64,
}

/// What a block that was read turned out to be, against the stamp that was expected there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Diagnosis {
    /// The expected block, whole.
    Right,
    /// This place's block of another write of this run.
    Stale {
        /// The write it belongs to.
        found: u64,
    },
    /// A block of this run and volume that belongs elsewhere.
    Misdirected {
        /// The LBA it belongs to.
        meant_for: Lba,
        /// The write it belongs to.
        found: u64,
    },
    /// A block of this run that belongs to another volume.
    ForeignVolume {
        /// Where it belongs.
        volume: Role,
        /// The LBA it belongs to there.
        meant_for: Lba,
    },
    /// A stamped block that changes hands in the middle.
    Torn {
        /// First byte that does not belong to the header's block.
        at_byte: usize,
        /// The write its header belongs to.
        found: u64,
        /// The run its header belongs to, as far as a block tells (64 of 80 bits).
        run_low: u64,
    },
    /// All zeros.
    Zero,
    /// A whole block of another run of this tool.
    OtherRun {
        /// That run, as far as the block tells (64 of 80 bits).
        run_low: u64,
    },
    /// Nothing this tool wrote.
    Unknown,
}

/// SplitMix64's finaliser: every output bit depends on every input bit.
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const fn volume_code(role: Role) -> u32 {
    match role {
        Role::Source => 1,
        Role::Target => 2,
        Role::Neighbour => 3,
        Role::Clone => 4,
    }
}

fn header_hash(header: &[u8]) -> u64 {
    header.chunks_exact(8).fold(0x6c62_6175_6469_7431, |hash, word| {
        mix(hash ^ word.try_into().map_or(0, u64::from_le_bytes))
    })
}

/// Word `i` of the body of the block whose header hashes to `seed`.
const fn body_word(seed: u64, i: u64) -> u64 {
    mix(seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// Writes the block that `stamp` describes over the whole of `block`.
///
/// # Panics
/// If `block` is shorter than 64 bytes or not a multiple of 8 long.
pub fn stamp_block(stamp: &Stamp, block: &mut [u8]) {
    assert!(block.len() >= 64 && block.len().is_multiple_of(8), "block of {} bytes", block.len());
    block[0..4].copy_from_slice(&MAGIC);
    block[4..8].copy_from_slice(&volume_code(stamp.volume).to_le_bytes());
    block[8..16].copy_from_slice(&stamp.run.low_u64().to_le_bytes());
    block[16..24].copy_from_slice(&stamp.lba.get().to_le_bytes());
    block[24..32].copy_from_slice(&stamp.generation.to_le_bytes());
    let seed = header_hash(&block[..32]);
    block[32..40].copy_from_slice(&seed.to_le_bytes());
    for (word, i) in block[HEADER..].chunks_exact_mut(8).zip(1..) {
        word.copy_from_slice(&body_word(seed, i).to_le_bytes());
    }
}

/// The header of a block, if its own hash confirms it.
struct Header {
    volume: u32,
    run_low: u64,
    lba: Lba,
    generation: u64,
    seed: u64,
}

fn parse_header(block: &[u8]) -> Option<Header> {
    let word = |at: usize| Some(u64::from_le_bytes(block.get(at..at + 8)?.try_into().ok()?));
    if block.get(..4)? != MAGIC.as_slice() {
        return None;
    }
    let seed = word(32)?;
    (header_hash(&block[..32]) == seed).then_some(Header {
        volume: u32::from_le_bytes(block.get(4..8)?.try_into().ok()?),
        run_low: word(8)?,
        lba: Lba::new(word(16)?),
        generation: word(24)?,
        seed,
    })
}

/// First byte of the body that does not follow from the header; `None` if the block is whole.
fn torn_at(block: &[u8], seed: u64) -> Option<usize> {
    let body = block.get(HEADER..)?;
    let word = body
        .chunks_exact(8)
        .zip(1..)
        .position(|(word, i)| word != body_word(seed, i).to_le_bytes())?;
    let at = HEADER + word * 8;
    let want = body_word(seed, word as u64 + 1).to_le_bytes();
    Some(at + block[at..].iter().zip(want).take_while(|(a, b)| **a == *b).count())
}

/// Says what `block` is, given that the block of `expected` should stand there.
pub fn diagnose(block: &[u8], expected: &Stamp) -> Diagnosis {
    let Some(header) = parse_header(block) else {
        return if block.iter().all(|&b| b == 0) { Diagnosis::Zero } else { Diagnosis::Unknown };
    };
    if let Some(at_byte) = torn_at(block, header.seed) {
        let (found, run_low) = (header.generation, header.run_low);
        return Diagnosis::Torn { at_byte, found, run_low };
    }
    if header.run_low != expected.run.low_u64() {
        return Diagnosis::OtherRun { run_low: header.run_low };
    }
    let Some(volume) = Role::ALL.into_iter().find(|&role| volume_code(role) == header.volume)
    else {
        return Diagnosis::Unknown;
    };
    if volume != expected.volume {
        Diagnosis::ForeignVolume { volume, meant_for: header.lba }
    } else if header.lba != expected.lba {
        Diagnosis::Misdirected { meant_for: header.lba, found: header.generation }
    } else if header.generation != expected.generation {
        Diagnosis::Stale { found: header.generation }
    } else {
        Diagnosis::Right
    }
}

impl Diagnosis {
    /// Whether the block is one that this run wrote somewhere, whole or torn.
    pub const fn is_of(self, run: RunId) -> bool {
        match self {
            Diagnosis::Torn { run_low, .. } => run_low == run.low_u64(),
            Diagnosis::Right
            | Diagnosis::Stale { .. }
            | Diagnosis::Misdirected { .. }
            | Diagnosis::ForeignVolume { .. } => true,
            Diagnosis::Zero | Diagnosis::OtherRun { .. } | Diagnosis::Unknown => false,
        }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Diagnosis::Right => f.write_str("the expected block"),
            Diagnosis::Stale { found } => write!(f, "this place's block of write {found}"),
            Diagnosis::Misdirected { meant_for, found } => {
                write!(f, "the block of LBA {meant_for}, write {found}")
            }
            Diagnosis::ForeignVolume { volume, meant_for } => {
                write!(f, "the block of LBA {meant_for} of the {volume} volume")
            }
            Diagnosis::Torn { at_byte, found, .. } => {
                write!(f, "a torn block: write {found} up to byte {at_byte}, then something else")
            }
            Diagnosis::Zero => f.write_str("zeros"),
            Diagnosis::OtherRun { run_low } => {
                write!(f, "a block of another run (..{run_low:016x})")
            }
            Diagnosis::Unknown => f.write_str("data this tool never wrote"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamps() -> impl Strategy<Value = Stamp> {
        (any::<u128>(), prop::sample::select(Role::ALL.to_vec()), any::<u64>(), any::<u64>())
            .prop_map(|(run, volume, lba, generation)| Stamp {
                run: RunId::from_u128(run),
                volume,
                lba: Lba::new(lba),
                generation,
            })
    }

    fn block(stamp: &Stamp, len: usize) -> Vec<u8> {
        let mut block = vec![0xee; len];
        stamp_block(stamp, &mut block);
        block
    }

    fn sizes() -> impl Strategy<Value = usize> {
        prop::sample::select(vec![64usize, 128, 512, 4096])
    }

    proptest! {
        #[test]
        fn a_block_is_right_where_it_belongs_and_named_elsewhere(s in stamps(), len in sizes()) {
            let bytes = block(&s, len);
            prop_assert_eq!(diagnose(&bytes, &s), Diagnosis::Right);
            let later = Stamp { generation: s.generation ^ 1, ..s };
            prop_assert_eq!(diagnose(&bytes, &later), Diagnosis::Stale { found: s.generation });
            let away = Stamp { lba: Lba::new(s.lba.get() ^ 8), ..s };
            prop_assert_eq!(diagnose(&bytes, &away), Diagnosis::Misdirected { meant_for: s.lba, found: s.generation });
            let volume = if s.volume == Role::Source { Role::Target } else { Role::Source };
            prop_assert_eq!(diagnose(&bytes, &Stamp { volume, ..s }), Diagnosis::ForeignVolume { volume: s.volume, meant_for: s.lba });
            let run = RunId::from_u128(s.run.as_u128() ^ 1);
            prop_assert_eq!(diagnose(&bytes, &Stamp { run, ..s }), Diagnosis::OtherRun { run_low: s.run.low_u64() });
        }

        #[test]
        fn a_tear_is_found_at_the_byte_where_the_blocks_part(s in stamps(), len in sizes(), cut in any::<prop::sample::Index>()) {
            let old = block(&Stamp { generation: s.generation.wrapping_add(1), ..s }, len);
            let mut torn = block(&s, len);
            let cut = HEADER + cut.index(len - HEADER);
            torn[cut..].copy_from_slice(&old[cut..]);
            let whole = block(&s, len);
            let parts = whole.iter().zip(&torn).position(|(a, b)| a != b);
            match parts {
                Some(at_byte) => prop_assert_eq!(diagnose(&torn, &s), Diagnosis::Torn { at_byte, found: s.generation, run_low: s.run.low_u64() }),
                None => prop_assert_eq!(diagnose(&torn, &s), Diagnosis::Right),
            }
        }

        #[test]
        fn one_flipped_bit_is_never_right(s in stamps(), len in sizes(), at in any::<prop::sample::Index>(), bit in 0u32..8) {
            let mut bytes = block(&s, len);
            bytes[at.index(len)] ^= 1 << bit;
            prop_assert!(diagnose(&bytes, &s) != Diagnosis::Right);
        }

        #[test]
        fn any_bytes_get_a_diagnosis(bytes in prop::collection::vec(any::<u8>(), 0..200), s in stamps()) {
            prop_assert!(diagnose(&bytes, &s) != Diagnosis::Right);
        }
    }

    #[test]
    fn zeros_are_called_zeros() {
        let s = Stamp {
            run: RunId::from_u128(1),
            volume: Role::Source,
            lba: Lba::new(0),
            generation: 1,
        };
        assert_eq!(diagnose(&[0; 4096], &s), Diagnosis::Zero);
        assert_eq!(diagnose(&[7; 4096], &s), Diagnosis::Unknown);
    }

    #[test]
    fn the_first_bytes_of_a_block_are_frozen() {
        // A changed layout must be a decision: old runs' blocks would no longer be recognised.
        let s = Stamp {
            run: RunId::from_u128(0xabc),
            volume: Role::Target,
            lba: Lba::new(64),
            generation: 7,
        };
        let bytes = block(&s, 64);
        let hex: String = bytes[..32].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "6c62413102000000bc0a00000000000040000000000000000700000000000000");
    }
}
