//! The architecture as a test: reads the sources and holds them against the layers of `lib.rs`.

use std::fs;
use std::path::{Path, PathBuf};

/// Layers from the bottom up; adapters share one rank and do not see each other.
const LAYERS: [(&str, u32); 17] = [
    ("block", 0),
    ("scenario", 1),
    ("model", 2),
    ("judge", 2),
    ("oracle", 3),
    ("array", 3),
    ("sync", 4),
    ("lightbits", 5),
    ("device", 5),
    ("qemu", 5),
    ("sim", 5),
    ("engine", 6),
    ("suite", 7),
    ("campaign", 8),
    ("report", 9),
    ("fuzzing", 9),
    ("cli", 10),
];

/// Uses that break the order, each with its reason.
const ALLOWED: [(&str, &str); 1] = [
    // Loop devices are attached by the same ioctls that guard them; unsafe code has one home.
    ("sim", "device"),
];

fn rank(layer: &str) -> Option<u32> {
    LAYERS.iter().find(|(name, _)| *name == layer).map(|(_, rank)| *rank)
}

/// Every source file below `src/`, by layer, with its text. Test-only files are left out.
fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src can be listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let inside = path.strip_prefix(&root).expect("below src").to_path_buf();
            let layer = inside.iter().next().expect("a name").to_string_lossy().into_owned();
            if path.extension().is_some_and(|e| e == "rs") && inside.components().count() > 1 {
                let text = fs::read_to_string(&path).expect("a source reads");
                found.push((layer, inside, text));
            }
        }
    }
    assert!(found.len() > 50, "only {} sources found", found.len());
    found
}

/// Whether the file holds nothing but tests.
fn is_test_file(path: &Path) -> bool {
    let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let parts = ["tests", "testing", "testio", "twin", "witness", "witness_bench", "test_server"];
    parts.contains(&name.as_str()) || name.ends_with("_tests")
}

/// The part of a source that is compiled into the program, without comments.
fn program_lines(text: &str) -> impl Iterator<Item = &str> {
    let upto = text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..upto].lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// Names of the layers that a line speaks of.
fn used(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("crate::").filter_map(|(at, found)| {
        let rest = &line[at + found.len()..];
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
    })
}

fn offences(is_offence: impl Fn(&str, &Path, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (layer, path, text) in sources() {
        if is_test_file(&path) {
            continue;
        }
        for line in program_lines(&text) {
            if is_offence(&layer, &path, line) {
                found.push(format!("{}: {}", path.display(), line.trim()));
            }
        }
    }
    found
}

#[test]
fn the_layers_hold() {
    let upwards = offences(|layer, _, line| {
        used(line).any(|other| match (rank(layer), rank(other)) {
            (Some(own), Some(used)) => {
                other != layer && used >= own && !ALLOWED.contains(&(layer, other))
            }
            _ => false,
        })
    });
    assert_eq!(upwards, Vec::<String>::new(), "a layer uses one that is not below it");
}

#[test]
fn no_group_hides_a_layer() {
    // `used` reads one path a line, so layers are imported one by one.
    let grouped = offences(|_, _, line| line.contains("crate::{"));
    assert_eq!(grouped, Vec::<String>::new(), "write one `use` for each layer");
}

#[test]
fn only_these_files_write_to_devices_and_take_snapshots() {
    let adapters = ["device", "lightbits", "qemu", "sim"];
    let writers = ["array/pace.rs", "engine/transfer.rs", "sync/copy.rs", "sync/write_log.rs"];
    let takers = [
        "engine/interp.rs",
        "engine/together.rs",
        "campaign/journal.rs",
        "campaign/clone_reader.rs",
        // Only as many as the user allows.
        "campaign/audit.rs",
    ];
    let elsewhere = |call: &'static str, allowed: &[&'static str]| {
        offences(|layer, path, line| {
            line.contains(call)
                && !adapters.contains(&layer)
                && !allowed.iter().any(|file| path == Path::new(file))
        })
    };
    assert_eq!(elsewhere(".write_at(", &writers), Vec::<String>::new());
    assert_eq!(elsewhere(".create_snapshot(", &takers), Vec::<String>::new());
}

#[test]
fn nothing_is_memory_mapped() {
    // A page of a mapped device may be written back at any later time, and a fault is a signal.
    assert_eq!(offences(|_, _, line| line.contains("mmap")), Vec::<String>::new());
}

#[test]
fn the_simulator_shares_nothing_with_its_judges() {
    let glue = Path::new("sim/port.rs");
    let shared = offences(|layer, path, line| {
        let forbidden = ["model", "oracle", "lightbits", "sync"];
        let bitmap = ["ChunkBitmap", "ChunkBits", "BitmapOrder", "LbaSet"];
        layer == "sim"
            && (used(line).any(|other| forbidden.contains(&other))
                || (path != glue && bitmap.iter().any(|name| line.contains(name))))
    });
    assert_eq!(shared, Vec::<String>::new());
}

#[test]
fn the_second_judge_shares_nothing_with_the_first() {
    let words_only = ["block", "scenario", "judge"];
    let shared = offences(|layer, _, line| {
        layer == "judge" && used(line).any(|other| !words_only.contains(&other))
    });
    assert_eq!(shared, Vec::<String>::new(), "the judge knows words and records, nothing else");
    let borrowed = offences(|layer, _, line| {
        ["model", "oracle"].contains(&layer) && used(line).any(|other| other == "judge")
    });
    assert_eq!(borrowed, Vec::<String>::new());
}

#[test]
fn only_the_command_line_prints_exits_and_reads_the_environment() {
    let printing = ["println!(", "print!(", "eprintln!(", "eprint!(", "dbg!("];
    let talking = offences(|layer, _, line| {
        !["report", "cli"].contains(&layer) && printing.iter().any(|call| line.contains(call))
    });
    assert_eq!(talking, Vec::<String>::new());
    let reading = offences(|layer, _, line| {
        layer != "cli" && (line.contains("env::var") || line.contains("process::exit"))
    });
    assert_eq!(reading, Vec::<String>::new());
}

#[test]
fn unsafe_code_has_one_home_and_no_shell_is_started() {
    let home = Path::new("device/ioctl.rs");
    let elsewhere = offences(|_, path, line| path != home && line.contains("unsafe {"));
    assert_eq!(elsewhere, Vec::<String>::new());
    let shells = [
        ["sh", " -c"].concat(),
        ["Command::new(\"", "sh\")"].concat(),
        ["Command::new(\"", "bash\")"].concat(),
    ];
    assert_eq!(
        offences(|_, _, line| shells.iter().any(|shell| line.contains(shell))),
        Vec::<String>::new()
    );
}

#[test]
fn no_child_process_inherits_the_token() {
    // Environments of processes can be read by others of the same user, and end up in core files.
    let removes = ["env_remove(\"LIGHTBITS_JWT\")", ".env_clear()"];
    let count = |text: &str, words: &[&str]| {
        program_lines(text).filter(|line| words.iter().any(|word| line.contains(word))).count()
    };
    let inheriting: Vec<String> = sources()
        .into_iter()
        .filter(|(_, path, _)| !is_test_file(path))
        .filter(|(_, _, text)| count(text, &["Command::new("]) > count(text, &removes))
        .map(|(_, path, _)| path.display().to_string())
        .collect();
    assert_eq!(inheriting, Vec::<String>::new(), "remove LIGHTBITS_JWT from each child");
}

#[test]
fn every_module_says_what_it_does_not_cover() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|(_, path, _)| !is_test_file(path))
        .filter(|(_, _, text)| {
            let head: Vec<&str> = text
                .lines()
                .skip_while(|line| !line.starts_with("//!"))
                .take_while(|line| line.starts_with("//!"))
                .map(|line| line.trim_start_matches("//!").trim())
                .collect();
            !head.join(" ").to_lowercase().contains("not covered")
        })
        .map(|(_, path, _)| path.display().to_string())
        .collect();
    assert_eq!(
        silent,
        Vec::<String>::new(),
        "add a sentence `Not covered: ...` to the module docs"
    );
}

#[test]
fn no_source_outgrows_700_lines() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter(|(_, _, text)| text.lines().count() > 700)
        .map(|(_, path, text)| format!("{} has {} lines", path.display(), text.lines().count()))
        .collect();
    assert_eq!(long, Vec::<String>::new());
}
