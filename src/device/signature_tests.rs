use super::*;
use proptest::prelude::*;

const SIZE: u64 = 16 << 20;

/// An empty device with these bytes at these offsets, looked at.
fn with(put: &[(u64, &[u8])]) -> Vec<Signature> {
    let mut device = vec![0u8; usize::try_from(SIZE).expect("small")];
    for (at, bytes) in put {
        let at = usize::try_from(*at).expect("small");
        device[at..at + bytes.len()].copy_from_slice(bytes);
    }
    look(SIZE, |at, buf| {
        let at = usize::try_from(at).expect("small");
        buf.copy_from_slice(&device[at..at + buf.len()]);
        Ok(())
    })
    .expect("it reads")
}

fn names(found: &[Signature]) -> Vec<&str> {
    found.iter().map(|signature| signature.name.as_str()).collect()
}

#[test]
fn an_empty_device_and_one_of_our_own_stamps_hold_nothing() {
    assert_eq!(with(&[]), []);
    let mut block = vec![0u8; 4096];
    let stamp = crate::block::Stamp {
        run: crate::block::RunId::from_u128(7),
        volume: crate::block::Role::Source,
        lba: crate::block::Lba::new(0),
        generation: 3,
    };
    crate::block::stamp_block(&stamp, &mut block);
    assert_eq!(with(&[(0, &block), (4096, &block), (SIZE - 4096, &block)]), []);
}

#[test]
fn every_magic_of_the_table_is_found_at_each_of_its_places() {
    for &(name, place, magic) in MAGICS {
        for at in places(place, SIZE) {
            let found = with(&[(at, magic)]);
            assert_eq!(names(&found), [name], "{name} at {at}");
            assert_eq!(found[0].at_bytes, Some(at), "{name}");
            // One bit off is something else.
            let mut other = magic.to_vec();
            other[0] ^= 1;
            assert_eq!(with(&[(at, &other)]), [], "{name} at {at} with a bit off");
        }
    }
}

#[test]
fn short_magics_are_believed_only_with_a_table_that_makes_sense() {
    let ext = |log_block: u32, compat: u32, incompat: u32| {
        with(&[
            (1024, &8u32.to_le_bytes()),
            (1028, &64u32.to_le_bytes()),
            (1024 + 0x18, &log_block.to_le_bytes()),
            (1024 + 0x38, &[0x53, 0xef]),
            (1024 + 0x5c, &compat.to_le_bytes()),
            (1024 + 0x60, &incompat.to_le_bytes()),
        ])
    };
    assert_eq!(names(&ext(2, 4, 0x40)), ["ext4"]);
    assert_eq!(names(&ext(2, 4, 0)), ["ext3"]);
    assert_eq!(names(&ext(2, 0, 0)), ["ext2"]);
    assert_eq!(ext(7, 0, 0), [], "no block size is that large");
    assert_eq!(with(&[(1024 + 0x38, &[0x53, 0xef])]), [], "no inodes, no blocks");

    let entry = [0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0x10, 0, 0];
    assert_eq!(names(&with(&[(446, &entry), (510, &[0x55, 0xaa])])), ["dos"]);
    assert_eq!(with(&[(446, &entry)]), [], "no boot signature");
    assert_eq!(with(&[(510, &[0x55, 0xaa])]), [], "an empty table");
    let odd = [0x81, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0x10, 0, 0];
    assert_eq!(with(&[(446, &odd), (510, &[0x55, 0xaa])]), [], "no such boot flag");
}

#[test]
fn what_cannot_be_read_is_an_error_and_not_nothing() {
    assert!(look(SIZE, |_, _| Err(io::Error::other("EIO"))).is_err());
    let tail_fails = |at: u64, _: &mut [u8]| match at {
        0 => Ok(()),
        _ => Err(io::Error::other("EIO")),
    };
    assert!(look(SIZE, tail_fails).is_err());
}

#[test]
fn blkid_is_read_by_type_and_table_type() {
    let said = b"DEVNAME=/dev/loop0\nTYPE=ext4\nUUID=1-2\nPTTYPE=dos\nUSAGE=filesystem\n";
    assert_eq!(names(&read_blkid(said)), ["dos", "ext4"]);
    assert_eq!(read_blkid(b""), []);
    assert_eq!(read_blkid(b"TYPE=\nUUID=TYPE\n"), []);
}

#[test]
fn blkid_that_cannot_tell_is_an_error_and_none_at_all_is_not() {
    let device = Path::new("/dev/null");
    assert_eq!(ask_blkid(None, device), Ok(Vec::new()));
    assert_eq!(ask_blkid(Some(Path::new("/bin/true")), device), Ok(Vec::new()));
    assert!(ask_blkid(Some(Path::new("/bin/false")), device).is_err());
    assert!(ask_blkid(Some(Path::new("/no/such/blkid")), device).is_err());
}

#[test]
fn only_what_was_named_may_be_destroyed() {
    let found = with(&[(0, b"XFSB"), (4096 - 10, b"SWAPSPACE2")]);
    let path = Path::new("/dev/x");
    let guard = |allowed: &[&str]| {
        let allowed = allowed.iter().map(|&name| name.to_owned()).collect();
        g14_no_signature(path, &found, &Allowed::Named(allowed))
    };
    let refusal = guard(&[]).expect_err("refused");
    assert_eq!(refusal.guard, "G14");
    assert!(refusal.message.contains("swap at byte 4086 and xfs at byte 0"), "{refusal}");
    assert!(refusal.message.contains("--allow-signature swap --allow-signature xfs"), "{refusal}");
    let refusal = guard(&["xfs", "ext4"]).expect_err("refused");
    assert!(refusal.message.contains("swap") && !refusal.message.contains("xfs"), "{refusal}");
    assert_eq!(guard(&["xfs", "swap"]), Ok(()));
    assert_eq!(g14_no_signature(path, &found, &Allowed::Whatever), Ok(()));
    assert_eq!(g14_no_signature(path, &[], &Allowed::default()), Ok(()));
}

proptest! {
    #[test]
    fn any_bytes_and_any_size_are_looked_at_without_a_panic(
        head in prop::collection::vec(any::<u8>(), 0..3000),
        tail in prop::collection::vec(any::<u8>(), 0..3000),
        size_bytes in prop_oneof![0u64..10_000, any::<u64>()],
    ) {
        let found = find(&Ends { head: &head, tail: &tail, size_bytes });
        for signature in &found {
            prop_assert!(signature.at_bytes.is_some_and(|at| at < size_bytes.max(head.len() as u64)));
        }
    }

    #[test]
    fn whatever_blkid_says_is_read_without_a_panic(said in prop::collection::vec(any::<u8>(), 0..300)) {
        for signature in read_blkid(&said) {
            prop_assert!(!signature.name.is_empty());
        }
    }
}
