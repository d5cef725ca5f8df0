//! `lbaudit diff`: one diff answer, streamed. Pages are checked for their shape as they come, and
//! none is kept, so that the answer of a 64 TiB volume fits. Not covered: whether the LBAs are the
//! right ones (`suite`).

use crate::array::{ApiError, Array, SnapshotInfo, SnapshotState};
use crate::block::{BitmapOrder, ChunkBits, LBA_BYTES, Lba, LbaCount, SnapshotUuid};
use crate::cli::Context;
use crate::cli::args::{Form, OrderArg, OutputArgs, TargetArgs};
use crate::cli::connect::connect;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::ui::Versioned;
use crate::lightbits::LightbitsClient;
use crate::sync::{DiffAnswer, PipelineBugs, WalkRequest, walk_streaming};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::io::{BufWriter, Write};

/// Which diff, and how to show it.
#[derive(Args, Clone, Debug)]
pub struct DiffArgs {
    /// Which array.
    #[command(flatten)]
    pub target: TargetArgs,
    /// The snapshot.
    #[arg(long, value_name = "NAME|UUID")]
    pub snapshot: String,
    /// Its base; since creation if absent.
    #[arg(long, value_name = "NAME|UUID")]
    pub base: Option<String>,
    /// Start here.
    #[arg(long, value_name = "LBA", default_value_t = 0)]
    pub from: u64,
    /// How to show it.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
    /// Only the sums.
    #[arg(long)]
    pub summary: bool,
    /// Order of the bytes of a bitmap; auto is little.
    #[arg(long, value_name = "ORDER", default_value = "auto")]
    pub bitmap_order: OrderArg,
    /// Where the answer goes; `--output jsonl` is one range a line.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How to show a diff.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// One line a range, with its picture.
    Table,
    /// One JSON object a line.
    Json,
    /// The whole volume in 16 lines.
    Map,
}

/// Cells of a map.
const MAP_COLUMNS: usize = 64;
const MAP_ROWS: usize = 16;

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Range {
        lba: u64,
        bitmap: String,
        lbas: u64,
    },
    DiffFinished {
        pages: u32,
        ranges: u64,
        lbas: u64,
        peak_rss_bytes: Option<u64>,
        notes: &'a [String],
    },
}

/// Asks for the diff and shows it.
///
/// # Errors
/// [`Failure`]: exit 1 if the answer breaks its own form, 2 and 3 as everywhere.
pub fn run(
    args: &DiffArgs,
    env_token: Option<String>,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let connection = args.target.connection(env_token, &[])?;
    let order = args.bitmap_order.order().unwrap_or(BitmapOrder::Little);
    let client = connect(&connection, order, context)?.client;
    let snapshot = find(&client, &args.snapshot)?;
    let base = args.base.as_ref().map(|base| find(&client, base)).transpose()?;
    if let Some(source) = args.target.source_uuid.filter(|source| *source != snapshot.volume) {
        return Err(Failure::usage(format!(
            "snapshot `{}` is of volume {}, not of {source}",
            args.snapshot, snapshot.volume
        )));
    }
    let request = WalkRequest {
        snapshot: snapshot.uuid,
        base: base.map(|base| base.uuid),
        from: Lba::new(args.from),
        volume_len: snapshot.len,
        strict: false,
        bugs: PipelineBugs::NONE,
        stop: context.stop.flag(),
    };
    let format = if context.ui.form == Form::Jsonl { Format::Json } else { args.format };
    let mut out = BufWriter::new(context.ui.out());
    show(&client, &request, format, args.summary, &mut out)?;
    Ok(Exit::Passed)
}

/// The Available snapshot of this name or UUID.
///
/// # Errors
/// If there is none, it is not Available, or it cannot be looked at.
pub fn find(client: &LightbitsClient, name: &str) -> Result<SnapshotInfo, Failure> {
    let found = match name.parse::<SnapshotUuid>() {
        Ok(uuid) => Some(client.snapshot(uuid)?),
        Err(_) => {
            let named = client.snapshots_by_name(name)?;
            if named.len() > 1 {
                let uuids: Vec<String> = named.iter().map(|info| info.uuid.to_string()).collect();
                return Err(Failure::usage(format!(
                    "{} snapshots are named `{name}`; say which by its UUID: {}",
                    named.len(),
                    uuids.join(", ")
                )));
            }
            named.into_iter().next()
        }
    };
    match found {
        None => Err(Failure::usage(format!("there is no snapshot `{name}` in this project"))),
        Some(info) if info.state != SnapshotState::Available => {
            Err(Failure::could_not(format!("snapshot `{name}` is {:?}, not Available", info.state)))
        }
        Some(info) => match client.volume(info.volume) {
            Ok(volume) => Ok(measured(info, volume.size_bytes)),
            // Its volume may have been deleted; it stays and can be asked about.
            Err(ApiError::NotFound(_)) if info.len > LbaCount::ZERO => Ok(info),
            Err(error) => Err(error.into()),
        },
    }
}

/// A snapshot with the size that its diffs are read with. Not every answer tells it; that of the volume,
/// of `bytes`, stands for it then. A volume may have grown or been shrunk since.
pub fn measured(mut info: SnapshotInfo, bytes: u64) -> SnapshotInfo {
    if info.len == LbaCount::ZERO {
        info.len = LbaCount::new(bytes.div_ceil(LBA_BYTES));
    }
    info
}

/// Counts of LBAs by cell of the volume.
struct Map {
    cell_lbas: u64,
    set: Vec<u64>,
    len: LbaCount,
}

impl Map {
    fn new(len: LbaCount) -> Map {
        let cells = (MAP_COLUMNS * MAP_ROWS) as u64;
        // Whole chunks, so that a chunk lies in one cell.
        let cell_lbas = len.chunks().div_ceil(cells).max(1) * 64;
        Map { cell_lbas, set: vec![0; MAP_COLUMNS * MAP_ROWS], len }
    }
    fn add(&mut self, chunk: &ChunkBits) {
        let cell = usize::try_from(chunk.start.get() / self.cell_lbas).unwrap_or(usize::MAX);
        if let Some(count) = self.set.get_mut(cell) {
            *count += chunk.bits.count().get();
        }
    }
    fn lines(&self) -> Vec<String> {
        let mark = |(cell, &set): (u64, &u64)| {
            let start = cell * self.cell_lbas;
            match self.len.get().saturating_sub(start).min(self.cell_lbas) {
                0 => ' ',
                _ if set == 0 => '.',
                whole if set == whole => '#',
                _ => '+',
            }
        };
        let marks: Vec<char> = (0..).zip(&self.set).map(mark).collect();
        let rows = marks.chunks(MAP_COLUMNS).zip(0u64..).map(|(row, number)| {
            let lba = number * self.cell_lbas * MAP_COLUMNS as u64;
            format!("{lba:>14}  {}", row.iter().collect::<String>().trim_end())
        });
        rows.take_while(|row| !row.ends_with("  "))
            .chain([format!("one mark is {} LBAs: . none, + some, # all", self.cell_lbas)])
            .collect()
    }
}

fn show(
    array: &dyn Array,
    request: &WalkRequest<'_>,
    format: Format,
    summary_only: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut map = Map::new(request.volume_len);
    let mut lbas = 0;
    // A closed output ends the writing; the walk's own end still tells whether the answer is sound.
    let mut written = Ok(());
    let answer = walk_streaming(array, request, &mut |_, _| (), &mut |chunks| {
        for chunk in chunks {
            lbas += chunk.bits.count().get();
            map.add(chunk);
            if !summary_only && written.is_ok() {
                written = write_range(format, chunk, out);
            }
        }
    })?;
    let finished = written.and_then(|()| {
        write_summary(format, &answer, lbas, if summary_only { None } else { Some(&map) }, out)?;
        out.flush()
    });
    match finished {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::could_not(format!("cannot write the answer: {error}")))
        }
        _ => Ok(()),
    }
}

fn write_range(format: Format, chunk: &ChunkBits, out: &mut dyn Write) -> std::io::Result<()> {
    let (lba, lbas) = (chunk.start.get(), chunk.bits.count().get());
    match format {
        Format::Table => writeln!(out, "{lba:>14}  {}  {lbas}", chunk.bits),
        Format::Json => {
            let bitmap = format!("{:#018x}", chunk.bits.bits());
            write_json(Line::Range { lba, bitmap, lbas }, out)
        }
        Format::Map => Ok(()),
    }
}

fn write_summary(
    format: Format,
    answer: &DiffAnswer,
    lbas: u64,
    map: Option<&Map>,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let DiffAnswer { pages, ranges, notes, .. } = answer;
    if format == Format::Json {
        let (pages, ranges) = (*pages, *ranges);
        let peak_rss_bytes = peak_rss_bytes();
        return write_json(Line::DiffFinished { pages, ranges, lbas, peak_rss_bytes, notes }, out);
    }
    if let Some(map) = map.filter(|_| format == Format::Map) {
        map.lines().iter().try_for_each(|line| writeln!(out, "{line}"))?;
    }
    for note in notes {
        writeln!(out, "note: {note}")?;
    }
    let mib = LbaCount::new(lbas).nominal_bytes().as_mib();
    writeln!(out, "{ranges} ranges / {pages} page(s) / {lbas} LBAs ({mib:.1} MB)")
}

fn write_json(line: Line<'_>, out: &mut dyn Write) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, &Versioned { v: 1, event: &line })?;
    out.write_all(b"\n")
}

/// The most memory this process ever held, from `VmHWM` of proc(5).
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::VirtualClock;
    use crate::block::{BlockSize, ByteOffset, VolumeUuid};
    use crate::sim::{SimArray, SimConfig};
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_snapshot_whose_size_is_not_told_is_as_large_as_its_volume() {
        let snapshot = |lbas| SnapshotInfo {
            uuid: SnapshotUuid::from_u128(1),
            name: "s".to_owned(),
            state: SnapshotState::Available,
            volume: VolumeUuid::from_u128(2),
            len: LbaCount::new(lbas),
            created: None,
        };
        let len = |lbas, bytes| measured(snapshot(lbas), bytes).len.get();
        assert_eq!(len(64, 65 << 12), 64, "the volume has grown since");
        assert_eq!(len(64, 63 << 12), 64, "or was shrunk");
        assert_eq!(len(0, (64 << 12) - 1), 64);
    }

    /// What `show` prints for LBAs 0..64 and 96 of a volume of 200 LBAs, one range a page.
    fn shown(format: Format, summary_only: bool) -> String {
        let config =
            SimConfig { page_limit: 1, block: BlockSize::SMALLEST, ..SimConfig::default() };
        let array = SimArray::new(config, Arc::new(VirtualClock::new()));
        let len = LbaCount::new(200);
        let volume: VolumeUuid = array.create_volume("v", len, None).expect("created");
        let device = array.device(volume).expect("attached");
        let block = BlockSize::SMALLEST;
        for lba in (0..64).chain([96]) {
            let at = Lba::new(lba).byte_offset(block).map(ByteOffset::get).expect("small");
            device.write_bytes(at, &[7; 64]).expect("written");
        }
        let snapshot = array.create_snapshot(volume, "s").expect("taken").uuid;
        let stop = AtomicBool::new(false);
        let request = WalkRequest {
            snapshot,
            base: None,
            from: Lba::new(0),
            volume_len: len,
            strict: true,
            bugs: PipelineBugs::NONE,
            stop: &stop,
        };
        let mut out = Vec::new();
        show(&array, &request, format, summary_only, &mut out).expect("shown");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn a_table_has_a_line_a_range() {
        let (full, one) = ("#".repeat(64), format!("{}#{}", ".".repeat(32), ".".repeat(31)));
        assert_eq!(
            shown(Format::Table, false),
            format!(
                "{:>14}  {full}  64\n{:>14}  {one}  1\n2 ranges / 2 page(s) / 65 LBAs (0.3 MB)\n",
                0, 64
            )
        );
        assert_eq!(shown(Format::Table, true), "2 ranges / 2 page(s) / 65 LBAs (0.3 MB)\n");
    }

    #[test]
    fn json_is_a_line_a_range_and_a_summary() {
        let text = shown(Format::Json, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(
            lines[1],
            r#"{"v":1,"event":"range","lba":64,"bitmap":"0x0000000100000000","lbas":1}"#
        );
        let last: serde_json::Value = serde_json::from_str(lines[2]).expect("JSON");
        assert_eq!(last["event"], "diff_finished");
        assert_eq!((last["pages"].as_u64(), last["lbas"].as_u64()), (Some(2), Some(65)));
        assert!(last["peak_rss_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn a_map_marks_chunks_as_none_some_or_all() {
        let text = shown(Format::Map, false);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "             0  #+..",
                "one mark is 64 LBAs: . none, + some, # all",
                "2 ranges / 2 page(s) / 65 LBAs (0.3 MB)"
            ]
        );
    }
}
