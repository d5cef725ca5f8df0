//! A violation for people: one sentence with kind and meaning, then the picture. Not covered: which
//! violations there are (`crate::oracle`).

use crate::block::ChunkBitmap;
use crate::oracle::{Picture, Violation};

/// The lines that show `violation`: the sentence, then expected and reported as a picture.
pub fn violation_lines(violation: &Violation) -> Vec<String> {
    let mut lines = vec![violation.to_string()];
    if let Some(picture) = &violation.picture {
        lines.extend(picture_lines(picture));
    }
    lines
}

fn picture_lines(picture: &Picture) -> [String; 2] {
    let Picture { chunk, expected, reported } = *picture;
    let differing = ChunkBitmap::from_bits(expected.bits() ^ reported.bits());
    let runs: Vec<String> = differing
        .runs()
        .map(|(first, len)| match len {
            1 => first.to_string(),
            _ => format!("{first}-{}", first + len - 1),
        })
        .collect();
    let bits = match runs.len() {
        0 => String::new(),
        1 if differing.count().get() == 1 => format!(", bit {}", runs[0]),
        1..=4 => format!(", bits {}", runs.join(", ")),
        many => format!(", {many} runs of bits"),
    };
    [format!("  expected  {expected}   chunk {chunk}{bits}"), format!("  reported  {reported}")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Kind;

    #[test]
    fn a_violation_reads_as_on_the_findings_screen() {
        let mut violation = Violation::new(
            Kind::Missed,
            "LBA 64..71 differ between s0 and s1, diff(s1, base s0) does not report them",
        );
        violation.picture = Some(Picture {
            chunk: 1,
            expected: ChunkBitmap::run(0, 8),
            reported: ChunkBitmap::EMPTY,
        });
        assert_eq!(
            violation_lines(&violation),
            [
                "missed (data loss): LBA 64..71 differ between s0 and s1, diff(s1, base s0) does not report them".to_owned(),
                format!("  expected  {}{}   chunk 1, bits 0-7", "#".repeat(8), ".".repeat(56)),
                format!("  reported  {}", ".".repeat(64)),
            ]
        );
    }

    #[test]
    fn the_picture_names_single_bits_and_counts_many() {
        let lines = |expected: u64, reported: u64| {
            picture_lines(&Picture {
                chunk: 7,
                expected: ChunkBitmap::from_bits(expected),
                reported: ChunkBitmap::from_bits(reported),
            })[0]
                .split("   ")
                .last()
                .map(str::to_owned)
        };
        assert_eq!(lines(1 << 63, 0).as_deref(), Some("chunk 7, bit 63"));
        assert_eq!(lines(0x5, 0x2).as_deref(), Some("chunk 7, bits 0-2"));
        assert_eq!(lines(0x0707, 0).as_deref(), Some("chunk 7, bits 0-2, 8-10"));
        assert_eq!(lines(0x5555, 0).as_deref(), Some("chunk 7, 8 runs of bits"));
        assert_eq!(lines(3, 3).as_deref(), Some("chunk 7"));
    }
}
