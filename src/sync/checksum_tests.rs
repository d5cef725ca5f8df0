use super::*;
use crate::block::LbaCount;
use crate::sync::testing::MemoryDevice;
use std::io::Write;

static GO_ON: AtomicBool = AtomicBool::new(false);
/// `printf abc | sha256sum` (FIPS 180-2, appendix B.1).
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn a_digest_prints_reads_back_and_has_a_short_form() {
    let abc = Digest::of(["a", "bc"]);
    assert_eq!(abc.to_string(), ABC);
    assert_eq!(ABC.parse(), Ok(abc));
    assert_eq!(abc.short(), "ba7816bf8f01cfea…");
    let upper = ABC.to_uppercase();
    for bad in ["", &ABC[1..], &upper, &format!("{ABC}0"), &format!("{}g", &ABC[1..])] {
        assert_eq!(bad.parse::<Digest>(), Err(BadDigest), "{bad}");
    }
}

#[test]
fn direct_reads_exactly_the_extent() {
    let device = MemoryDevice::numbered(100);
    let expected = Digest::of((10..30).map(|lba| device.block(lba)));
    assert_eq!(direct(&device, Extent::lbas(10, 20), &GO_ON).ok(), Some(expected));
    let past = direct(&device, Extent::lbas(90, 11), &GO_ON);
    assert!(matches!(past, Err(ChecksumError::Outside(_))), "{past:?}");
    let broken = MemoryDevice::numbered(100).failing_read_at(12);
    assert!(matches!(
        direct(&broken, Extent::lbas(10, 20), &GO_ON),
        Err(ChecksumError::Device(DeviceError::Io { .. }))
    ));
    let no_path = digest(ChecksumMethod::External, &device, Extent::lbas(0, 1), &GO_ON);
    assert!(matches!(no_path, Err(ChecksumError::NoPath)), "{no_path:?}");
}

/// A file whose 4 KiB blocks say where they are.
fn numbered_file(blocks: u64) -> tempfile::NamedTempFile {
    // Where this test was built: a tmpfs of an older kernel refuses O_DIRECT.
    let test = std::env::current_exe().expect("a running test");
    let folder = test.parent().expect("a program lies in a folder");
    let mut file = tempfile::NamedTempFile::new_in(folder).expect("a file on a real file system");
    for lba in 0..blocks {
        let mut block = [0u8; 4096];
        block[..8].copy_from_slice(&(lba + 1).to_le_bytes());
        file.write_all(&block).expect("room for a small file");
    }
    file.as_file().sync_all().expect("a good disk");
    file
}

/// Reads a file in whole blocks.
struct FileDevice<'a>(&'a tempfile::NamedTempFile, u64);

impl BlockDevice for FileDevice<'_> {
    fn block_size(&self) -> BlockSize {
        BlockSize::DEVICE
    }
    fn len_lbas(&self) -> LbaCount {
        LbaCount::new(self.1)
    }
    fn read_at(&self, at: ByteOffset, buf: &mut [u8]) -> Result<(), DeviceError> {
        use std::os::unix::fs::FileExt;
        let read = self.0.as_file().read_exact_at(buf, at.get());
        read.map_err(|source| DeviceError::Io { op: "read", at, source })
    }
    fn write_at(&self, _: ByteOffset, _: &[u8]) -> Result<usize, DeviceError> {
        Err(DeviceError::Unsupported("writing"))
    }
    fn write_zeroes(&self, _: crate::block::Lba, _: LbaCount) -> Result<(), DeviceError> {
        Err(DeviceError::Unsupported("zeroing"))
    }
    fn discard(&self, _: crate::block::Lba, _: LbaCount) -> Result<(), DeviceError> {
        Err(DeviceError::Unsupported("discarding"))
    }
    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }
    fn path(&self) -> Option<&Path> {
        Some(self.0.path())
    }
}

#[test]
fn both_ways_give_the_same_digest_of_a_real_file() {
    let file = numbered_file(700);
    let device = FileDevice(&file, 700);
    for extent in [Extent::lbas(0, 1), Extent::lbas(3, 256), Extent::lbas(100, 600)] {
        let (ours, theirs) = pair(
            || digest(ChecksumMethod::Direct, &device, extent, &GO_ON),
            || digest(ChecksumMethod::External, &device, extent, &GO_ON),
        );
        let (ours, theirs) = (ours.expect("read here"), theirs.expect("read by dd"));
        assert_eq!(ours, theirs, "{extent}");
        assert_ne!(ours, Digest::of([""]));
    }
}

#[test]
fn the_external_way_says_why_it_failed() {
    let file = numbered_file(8);
    let short = external(file.path(), Extent::lbas(4, 5), BlockSize::DEVICE, &GO_ON);
    assert!(matches!(short, Err(ChecksumError::Output { tool: "dd", .. })), "{short:?}");
    let missing =
        external(Path::new("./no-such-file"), Extent::lbas(0, 1), BlockSize::DEVICE, &GO_ON);
    match missing {
        Err(ChecksumError::Failed { tool: "dd", said, .. }) => {
            assert!(said.contains("No such file"), "{said}");
        }
        other => panic!("expected dd to fail, got {other:?}"),
    }
    let stop = AtomicBool::new(true);
    let stopped = direct(&FileDevice(&file, 8), Extent::lbas(0, 8), &stop);
    assert!(matches!(stopped, Err(ChecksumError::Interrupted)), "{stopped:?}");
}

#[test]
fn the_stop_flag_ends_the_tools_too() {
    let sparse = numbered_file(1);
    // Half a minute of work for sha256sum.
    sparse.as_file().set_len(8 << 30).expect("a file system with holes");
    let stop = AtomicBool::new(true);
    let stopped = external(sparse.path(), Extent::mib(0, 8 << 10), BlockSize::DEVICE, &stop);
    assert!(matches!(stopped, Err(ChecksumError::Interrupted)), "{stopped:?}");
}

#[test]
fn only_a_whole_answer_of_a_tool_is_believed() {
    let lines = "1+0 records in\n1+0 records out\n4096 bytes (4.1 kB) copied, 0.1 s, 1 GB/s\n";
    assert!(must_have_copied(lines, 4096).is_ok());
    for (said, len) in [(lines, 8192), ("", 0), ("x bytes", 1)] {
        assert!(must_have_copied(said, len).is_err(), "{said}");
    }
    assert_eq!(parse_sha256sum(&format!("{ABC}  -\n")).ok(), ABC.parse().ok());
    for said in
        [ABC.to_owned(), format!("\\{ABC}  -\n"), format!("{ABC}  -\n\u{1b}[31m"), String::new()]
    {
        match parse_sha256sum(&said) {
            Err(error) => assert!(!error.to_string().contains('\u{1b}')),
            Ok(digest) => panic!("{said} was read as {digest}"),
        }
    }
}
