//! Every input in `corpora/` through the function that its fuzz target calls, on any toolchain.
//!
//! `UPDATE_GOLDEN=1 cargo test --test corpora` writes those seeds anew that the program itself
//! makes. Not covered: finding inputs; that is what `cargo fuzz run` is for.

#![expect(clippy::unwrap_used, reason = "tests stop where something is not as it must be")]

use lbaudit::block::{BitmapOrder, BlockSize, Geometry, Policy, Role};
use lbaudit::fuzzing::{Asked, TARGETS, outcome};
use lbaudit::scenario::{SyncSource, write_trace};
use lbaudit::sim::wire::{Profile, Range, Snapshot, Volume, diff_json, error_json};
use lbaudit::sim::wire::{snapshot_json, snapshots_json, volume_json, volumes_json};
use lbaudit::suite::{MIN_LBAS, Options, SUITE, scenario_of};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of all of `corpora/` at most: it is part of every clone.
const CORPORA_MAX: u64 = 1 << 20;
/// The table of odd replies, beside them.
const TABLE: &str = "expected.tsv";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn every_kept_input_is_replayed_by_its_target() {
    let mut found = Vec::new();
    for target in TARGETS {
        let files = files_in(&root().join("corpora").join(target.name));
        assert!(files.len() >= 3, "{} has {} inputs", target.name, files.len());
        for file in &files {
            let bytes = fs::read(file).unwrap();
            if std::panic::catch_unwind(|| (target.run)(&bytes)).is_err() {
                found.push(file.display().to_string());
            }
        }
        (target.run)(b"");
    }
    assert_eq!(found, Vec::<String>::new(), "these panic, with the words above");
}

#[test]
fn every_target_has_a_folder_and_a_fuzz_target_and_every_folder_a_target() {
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names.len(), TARGETS.len(), "a name is used twice");
    let folders = files_in(&root().join("corpora")).iter().map(|path| name_of(path)).collect();
    assert_eq!(names, folders);
    let sources = files_in(&root().join("fuzz/fuzz_targets"));
    let sources: BTreeSet<String> =
        sources.iter().map(|path| name_of(path).trim_end_matches(".rs").to_owned()).collect();
    assert_eq!(names, sources);
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    for target in TARGETS {
        assert!(manifest.contains(&format!("name = \"{}\"\n", target.name)), "{}", target.name);
        let source = root().join("fuzz/fuzz_targets").join(format!("{}.rs", target.name));
        let source = fs::read_to_string(source).unwrap();
        assert!(source.contains(&format!("fuzzing::run(\"{}\", bytes)", target.name)));
        assert!(source.lines().count() <= 3, "{} holds logic", target.name);
        assert!(!target.about.is_empty());
    }
}

#[test]
fn the_corpora_stay_small() {
    let folders = files_in(&root().join("corpora"));
    let files = folders.iter().flat_map(|folder| files_in(folder));
    let bytes: u64 = files.map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(bytes < CORPORA_MAX, "corpora/ has {bytes} bytes");
}

/// One row of the table of odd replies.
struct Row {
    file: String,
    asked: Asked,
    wanted: String,
}

/// A snapshot of 1000 LBAs: its last chunk, at 960, has 40.
fn rows() -> Vec<Row> {
    let table = fs::read_to_string(root().join("corpora/diff_page").join(TABLE)).unwrap();
    let lines = table.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            let [file, how, wanted, section] = cells[..] else { panic!("four cells: {line}") };
            assert!(section.starts_with('§'), "the section of the contract: {line}");
            let mut asked =
                Asked { order: BitmapOrder::Little, volume_len: 1000, from: 0, strict: false };
            for word in how.split(' ') {
                match (word, word.strip_prefix("from=")) {
                    ("little", _) => {}
                    ("big", _) => asked.order = BitmapOrder::Big,
                    ("strict", _) => asked.strict = true,
                    (_, Some(lba)) => asked.from = lba.parse().unwrap(),
                    _ => panic!("how it is read: {line}"),
                }
            }
            Row { file: file.to_owned(), asked, wanted: wanted.to_owned() }
        })
        .collect()
}

#[test]
fn each_odd_reply_is_refused_or_read_exactly_as_the_table_says() {
    let mut wrong = Vec::new();
    for Row { file, asked, wanted } in rows() {
        let body = fs::read(root().join("corpora/diff_page").join(&file)).unwrap();
        let found = outcome(&body, asked).to_string();
        // A refusal also quotes the reply; the table has the words that name the reason.
        let as_wanted = match wanted.strip_prefix("refused: ") {
            Some(reason) => found.starts_with("refused: ") && found.contains(reason),
            None => found == wanted,
        };
        if !as_wanted {
            wrong.push(format!("{file} ({asked:?})\n  wanted {wanted}\n  found  {found}"));
        }
    }
    assert!(wrong.is_empty(), "{} odd replies:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_table_of_odd_replies_is_long_names_each_file_and_only_files() {
    let rows = rows();
    let listed: BTreeSet<&str> = rows.iter().map(|row| row.file.as_str()).collect();
    let refused = rows.iter().filter(|row| row.wanted.starts_with("refused: ")).count();
    assert!(listed.len() >= 60 && refused >= 40, "{} replies, {refused} refused", listed.len());
    let folder = files_in(&root().join("corpora/diff_page"));
    let odd = folder.iter().map(|path| name_of(path)).filter(|name| name.starts_with("odd-"));
    let odd: Vec<String> = odd.collect();
    assert!(odd.iter().map(String::as_str).eq(listed), "files and rows differ");
}

/// Seeds that the program makes itself: name in `corpora/`, bytes.
fn made_seeds() -> Vec<(String, String)> {
    let mut seeds = Vec::new();
    let shape = Geometry { block: BlockSize::DEVICE, len: MIN_LBAS, fresh: false };
    let options = Options {
        volumes: [(Role::Source, shape), (Role::Target, shape)].into(),
        policy: Policy::Exact,
        source: SyncSource::Live,
        min_mib_per_s: 0,
        keep_snapshots: false,
        fail_fast: false,
        stop_budget: Duration::ZERO,
    };
    for spec in &SUITE {
        let trace = write_trace(&scenario_of(spec, &options)).unwrap();
        seeds.push((format!("trace/suite-{}.jsonl", spec.name), trace));
    }
    let range = |chunk: u64, bits| Range {
        lba_start: chunk * 64,
        lba_end: (chunk * 64 + 63).min(999),
        bits,
    };
    let edges = [range(3, u64::MAX << 32), range(4, u64::MAX), range(7, 1)];
    let last = [range(0, 1), range(15, (1 << 40) - 1)];
    let volume = Volume {
        state: "Available",
        protection_state: "FullyProtected",
        uuid: "29051d6a-0000-4000-8000-000000000001".to_owned(),
        name: "vol-src".to_owned(),
        size_bytes: 4_096_000,
        ..Volume::default()
    };
    let snapshot = Snapshot {
        state: "Creating",
        uuid: "29051d6a-0000-4000-8000-000000000002".to_owned(),
        name: "tsync-0000000000000abc-1-x".to_owned(),
        size_bytes: 4_096_000,
        ..Snapshot::default()
    };
    for (letter, profile) in [("a", Profile::A), ("b", Profile::B)] {
        let pages = [("empty", 0, &[][..]), ("edges", 512, &edges), ("last", 0, &last)];
        for (what, next, ranges) in pages {
            let page = diff_json(next, ranges, profile);
            seeds.push((format!("diff_page/page-{letter}-{what}.json"), page));
        }
        let objects = [
            ("volume", volume_json(&volume, profile)),
            ("volumes", volumes_json(std::slice::from_ref(&volume), profile)),
            ("snapshot", snapshot_json(&snapshot, profile)),
            ("snapshots", snapshots_json(std::slice::from_ref(&snapshot), profile)),
        ];
        for (what, text) in objects {
            seeds.push((format!("api_objects/{what}-{letter}.json"), text));
        }
    }
    for (what, code) in [("not found", 5), ("base is being deleted", 9), ("\u{1b}[2Jgone", 13)] {
        let name: String = what.chars().filter(char::is_ascii_alphabetic).collect();
        seeds.push((format!("error_body/sim-{name}.json"), error_json(what, code)));
    }
    seeds
}

#[test]
fn the_suite_and_the_simulators_replies_are_among_the_seeds_as_they_are_today() {
    for (name, text) in made_seeds() {
        let path = root().join("corpora").join(&name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(kept, text, "{name} is out of date; UPDATE_GOLDEN=1 renews it");
    }
}
