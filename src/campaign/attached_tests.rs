//! The guards and the armed device on the simulator's volumes as a run meets them: a served file,
//! and a loop device on top of it. The simulator's own record says what really arrived.

use crate::array::{AlignedBuf, Array, BlockDevice, RealClock};
use crate::block::{
    ByteOffset, Extent, Lba, LbaCount, LbaSet, RunId, SnapshotName, SnapshotUuid, VolumeUuid,
};
use crate::device::{
    Consent, GuardRefusal, HandshakeProof, Host, Identified, Identity, Wanted, open_volumes,
};
use crate::sim::attach::{AttachKind, Attachment};
use crate::sim::fuse::VolumeFile;
use crate::sim::{SimArray, SimConfig};
use crate::testing::left_out;
use std::path::Path;
use std::sync::Arc;

const SIZE: u64 = 8 << 20;

fn attached(array: &SimArray, volume: VolumeUuid, kind: AttachKind) -> Option<Attachment> {
    let device = array.device(volume).expect("it is there");
    let file = VolumeFile { name: format!("source-{volume}"), volume: Arc::new(device) };
    match Attachment::new(vec![file], kind) {
        Ok(attachment) => Some(attachment),
        Err(error) => {
            left_out(&error);
            None
        }
    }
}

fn open(path: &Path, volume: VolumeUuid) -> Result<Identified, GuardRefusal> {
    let wanted = Wanted {
        path: path.to_owned(),
        volume,
        name: "vol-src".to_owned(),
        size_bytes: SIZE,
        sector_bytes: 4096,
        footprint: LbaCount::mib(8),
        counterpart: None,
    };
    let tail = volume.to_string()[24..].parse().expect("a tail");
    let opened = open_volumes(&Host::default(), vec![wanted], &Consent::new(vec![tail]));
    opened.map(|mut opened| opened.remove(0))
}

/// Takes a snapshot and answers what changed since `base`.
fn changes(
    array: &SimArray,
    volume: VolumeUuid,
    seq: u32,
    base: Option<SnapshotUuid>,
) -> (SnapshotUuid, LbaSet) {
    let port: &dyn Array = array;
    let name = SnapshotName::new(RunId::from_u128(1), seq);
    let made = port.create_snapshot(volume, name).expect("made").uuid;
    let page = port.diff_page(made, base, Lba::new(0)).expect("a diff");
    let mut set = LbaSet::new();
    page.chunks.iter().for_each(|chunk| set.insert_chunk(chunk.start, chunk.bits));
    (made, set)
}

fn check(kind: AttachKind) {
    let array = SimArray::new(SimConfig::default(), Arc::new(RealClock::new()));
    let volume = VolumeUuid::random();
    array.create_volume("vol-src", LbaCount::mib(8), Some(volume)).expect("made");
    let Some(attachment) = attached(&array, volume, kind) else { return };
    let path = attachment.paths().first().expect("one volume").clone();

    let opened = open(&path, volume).expect("every guard passes");
    assert_eq!(opened.identity(), Identity::BackingName);
    let second = open(&path, volume).expect_err("one run at a time");
    assert!(["G7", "G8"].contains(&second.guard), "{second}");
    let (empty, set) = changes(&array, volume, 1, None);
    assert!(set.is_empty(), "guards wrote {set}");

    let port = opened.handshake_port(LbaSet::from(Extent::lbas(100, 1)));
    let at = |lba: u64| ByteOffset::new(lba * 4096);
    let mut block = AlignedBuf::new(4096);
    port.read_at(at(100), &mut block).expect("it reads");
    port.write_at(at(100), &block).expect("the very bytes");
    port.flush().expect("it flushes");
    let (shaken, set) = changes(&array, volume, 2, Some(empty));
    assert_eq!(set, LbaSet::from(Extent::lbas(100, 1)));

    let proof = HandshakeProof::judged(&opened);
    let armed = opened.arm(&proof, LbaSet::from(Extent::lbas(0, 512))).expect("armed");
    armed.recheck().expect("nothing changed");
    block.fill(7);
    armed.write_at(at(3), &block).expect("it may");
    armed.write_zeroes(Lba::new(200), LbaCount::new(2)).expect("offered");
    armed.discard(Lba::new(300), LbaCount::new(4)).expect("offered");
    assert!(armed.write_at(at(512), &block).is_err());
    armed.flush().expect("it flushes");
    let (_, set) = changes(&array, volume, 3, Some(shaken));
    let expected = [Extent::lbas(3, 1), Extent::lbas(200, 2), Extent::lbas(300, 4)];
    assert_eq!(set, expected.into_iter().collect());
    drop(armed);
    attachment.detach().expect("nothing stays");
}

#[test]
fn a_served_file_passes_the_guards_and_takes_exactly_what_is_written() {
    check(AttachKind::Fuse);
}

#[test]
fn a_loop_device_on_it_passes_the_guards_and_takes_exactly_what_is_written() {
    check(AttachKind::Loop);
}

#[test]
fn a_served_file_under_another_volumes_name_is_refused() {
    let array = SimArray::new(SimConfig::default(), Arc::new(RealClock::new()));
    let volume = VolumeUuid::random();
    array.create_volume("vol-src", LbaCount::mib(8), Some(volume)).expect("made");
    let Some(attachment) = attached(&array, volume, AttachKind::Fuse) else { return };
    let path = attachment.paths().first().expect("one volume").clone();
    let refusal = open(&path, VolumeUuid::random()).expect_err("another volume");
    assert_eq!(refusal.guard, "G1", "{refusal}");
    attachment.detach().expect("nothing stays");
}
