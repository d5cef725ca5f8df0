//! One run out of several: the shards of a campaign, on as many hosts as you like, become a run folder
//! that reads like that of a single host.
//!
//! Sums and digests add up; findings of one cause become one, that of the lowest case; what the cases
//! reached is added. Of a shard that was started anew (an engine retries what could not test) the run
//! that did most counts, and findings of the others are kept. What does not belong together is refused:
//! runs of other seeds, profiles or targets. Not covered: going on with a merged run; how fast it was over time.

use super::check::SoFar;
use super::run_files::{COVERAGE, Checkpoint, MERGED, SHARD, Started, Stream, save_coverage};
use super::run_record::{Found, RunError, RunRecord};
use super::store::{RunFolder, UNFINISHED, copy_folder, finding_folders, run_folders};
use crate::campaign::part::Shard;
use crate::engine::Coverage;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Reasons why cases could not be judged that are kept.
const PROBLEMS: usize = 10;
/// How deep run folders are looked for below a folder that is given.
const DEPTH: u32 = 3;

/// Why runs cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// There is none.
    #[error("there is no run of `check` or `soak` in {0}")]
    Nothing(String),
    /// One cannot be read.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Two are not of one campaign.
    #[error(
        "{} and {} are not of one campaign: {key} is {first_is} there and {second_is} here",
        first.display(), second.display()
    )]
    Differ {
        /// One of them.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// In what.
        key: String,
        /// What it is in one.
        first_is: String,
        /// What it is in the other.
        second_is: String,
    },
    /// A shard is none.
    #[error("{}: {cause}", path.display())]
    Shard {
        /// The run.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// A file.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What merging came to.
pub struct Merged {
    /// What the new folder says.
    pub checkpoint: Checkpoint,
    /// What it was asked.
    pub started: Started,
    /// What all cases reached, if every run knows.
    pub coverage: Option<Coverage>,
    /// What is missing or not as it should be, in words.
    pub lacking: Vec<String>,
}

/// The run folders that are meant by paths: themselves, or all below them, but for those that another
/// one goes on with; and what of them cannot be read, in words.
///
/// # Errors
/// When a folder cannot be read, or there is no run.
pub fn gather(paths: &[PathBuf]) -> Result<(Vec<RunRecord>, Vec<String>), MergeError> {
    let mut folders = BTreeSet::new();
    for path in paths {
        look(&fs::canonicalize(path)?, DEPTH, &mut folders)?;
    }
    let (mut runs, mut unreadable) = (Vec::new(), Vec::new());
    for folder in folders {
        match RunRecord::load(&folder) {
            Ok(run) => runs.push(run),
            // Suites, and runs that were killed before they began.
            Err(RunError::NotOne(_)) => {}
            Err(error) => unreadable.push(error.to_string()),
        }
    }
    let gone_on: BTreeSet<String> =
        runs.iter().filter_map(|run| run.started.resumes.clone()).collect();
    runs.retain(|run| {
        let name = run.folder.file_name().and_then(|name| name.to_str());
        !name.is_some_and(|name| gone_on.contains(name)) && run.started.merged.is_empty()
    });
    if runs.is_empty() && unreadable.is_empty() {
        let named: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(MergeError::Nothing(named.join(", ")));
    }
    match unreadable.first() {
        Some(why) if runs.is_empty() => Err(io::Error::other(why.clone()).into()),
        _ => Ok((runs, unreadable)),
    }
}

fn look(path: &Path, depth: u32, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    if path.join(super::run_files::RUN).is_file() {
        found.insert(path.to_owned());
        return Ok(());
    }
    found.extend(run_folders(path)?.into_iter().map(|(_, folder)| folder));
    if depth == 0 {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // Links, such as `latest`, are not followed.
        if entry.file_type()?.is_dir() && !found.contains(&entry.path()) {
            look(&entry.path(), depth - 1, found)?;
        }
    }
    Ok(())
}

/// Merges runs into a folder.
///
/// # Errors
/// [`MergeError`].
pub fn merge(
    runs: &[RunRecord],
    unreadable: &[String],
    into: &RunFolder,
) -> Result<Merged, MergeError> {
    let all = runs;
    // Also those that do not count in the end.
    shards(&all.iter().collect::<Vec<_>>())?;
    let (runs, spare) = furthest(runs);
    let first = *runs.first().ok_or_else(|| MergeError::Nothing("nothing".to_owned()))?;
    let shards = shards(&runs)?;
    let mut lacking = missing(&shards);
    lacking.extend(unreadable.iter().cloned());
    let mut stream = first.checkpoint.stream.clone();
    stream.insert(SHARD.to_owned(), MERGED.to_owned());
    let mut merged = Checkpoint::begin(stream);
    merged.so_far = sums(&runs, &shards);
    let mut coverage: Option<Coverage> = None;
    for run in &runs {
        let name = run.folder.display();
        merged.seconds = merged.seconds.max(run.checkpoint.seconds);
        merged.problems.extend(run.checkpoint.problems.iter().cloned());
        match run.checkpoint.exit_code {
            None => lacking.push(format!("{name} was killed, or still goes on")),
            Some(code) if code >= 128 => lacking.push(format!("{name} was stopped by a signal")),
            Some(_) => {}
        }
        if run.started.cases != first.started.cases {
            let asked = |run: &RunRecord| match run.started.cases {
                Some(cases) => format!("{cases} cases"),
                None => "no number of cases".to_owned(),
            };
            lacking.push(format!(
                "{name} was asked for {}, {} for {}: together they are no campaign of either",
                asked(run),
                first.folder.display(),
                asked(first)
            ));
        }
        match (&run.coverage, &mut coverage) {
            (None, _) => lacking.push(format!("{name} has no {COVERAGE}")),
            (Some(more), Some(sum)) => sum.merge(more),
            (Some(more), none) => *none = Some(more.clone()),
        }
    }
    merged.problems.truncate(PROBLEMS);
    merged.findings = findings(&runs, &spare, into.path())?;
    if let Some(coverage) = &coverage {
        save_coverage(into.path(), coverage)?;
    }
    let mut begun = started(all, first, into, &lacking);
    begun.notes.extend(
        spare
            .iter()
            .map(|run| format!("{} was done anew: only its findings count", run.folder.display())),
    );
    Ok(Merged { started: begun, checkpoint: merged, coverage, lacking })
}

/// The run of each shard that did most, and the others.
fn furthest(runs: &[RunRecord]) -> (Vec<&RunRecord>, Vec<&RunRecord>) {
    let mut best: BTreeMap<Option<&String>, &RunRecord> = BTreeMap::new();
    let mut spare = Vec::new();
    for run in runs {
        let shard = run.checkpoint.stream.get(SHARD);
        let did = |run: &RunRecord| run.checkpoint.so_far.totals.cases;
        match best.get_mut(&shard) {
            Some(other) if did(other) >= did(run) => spare.push(run),
            Some(other) => spare.push(std::mem::replace(other, run)),
            None => drop(best.insert(shard, run)),
        }
    }
    (best.into_values().collect(), spare)
}

/// The shard of each run; all of one campaign.
fn shards(runs: &[&RunRecord]) -> Result<Vec<Shard>, MergeError> {
    let of = |stream: &Stream, key: &str| stream.get(key).cloned().unwrap_or_default();
    let differ = |first: &RunRecord, second: &RunRecord, key: &str, is: [String; 2]| {
        let [first_is, second_is] = is;
        let (first, second) = (first.folder.clone(), second.folder.clone());
        MergeError::Differ { first, second, key: key.to_owned(), first_is, second_is }
    };
    let mut shards: Vec<Shard> = Vec::new();
    let Some(first) = runs.first() else { return Ok(shards) };
    for run in runs {
        let (one, other) = (&first.checkpoint.stream, &run.checkpoint.stream);
        let mut keys = one.keys().chain(other.keys()).filter(|key| *key != SHARD);
        if let Some(key) = keys.find(|key| one.get(*key) != other.get(*key)) {
            return Err(differ(first, run, key, [of(one, key), of(other, key)]));
        }
        let shard: Shard = of(other, SHARD).parse().map_err(|cause: super::part::BadShard| {
            MergeError::Shard { path: run.folder.clone(), cause: cause.to_string() }
        })?;
        if let Some(other) = shards.first().filter(|other| other.count() != shard.count()) {
            let is = [other.count().to_string(), shard.count().to_string()];
            return Err(differ(first, run, "the number of shards", is));
        }
        shards.push(shard);
    }
    Ok(shards)
}

fn missing(shards: &[Shard]) -> Vec<String> {
    let count = shards.first().map_or(1, |shard| shard.count());
    let all = (0..count).filter_map(|index| Shard::new(index, count));
    let lacking = all.filter(|shard| !shards.contains(shard));
    lacking.map(|shard| format!("shard {shard} is missing")).collect()
}

/// The sums, and the cases from the first on that were done without a gap.
fn sums(runs: &[&RunRecord], shards: &[Shard]) -> SoFar {
    let mut sums = SoFar::default();
    let mut gap = None;
    for (run, shard) in runs.iter().zip(shards) {
        let so_far = &run.checkpoint.so_far;
        sums.totals.add(&so_far.totals);
        let first_gap = shard.case(so_far.done.first_missing());
        gap = Some(gap.map_or(first_gap, |gap: u64| gap.min(first_gap)));
    }
    if missing(shards).is_empty() {
        sums.done.add(0..gap.unwrap_or(0).min(sums.totals.cases));
    }
    sums
}

/// Findings by their case, the first of each cause copied.
fn findings(
    runs: &[&RunRecord],
    spare: &[&RunRecord],
    into: &Path,
) -> Result<Vec<super::run_files::Known>, MergeError> {
    let counted = runs.iter().flat_map(|run| &run.findings).map(|found| (found, true));
    let again = spare.iter().flat_map(|run| &run.findings).map(|found| (found, false));
    let mut all: Vec<(&Found, bool)> = counted.chain(again).collect();
    all.sort_by_key(|(found, counts)| (found.known.case, !counts));
    let mut kept: Vec<super::run_files::Known> = Vec::new();
    for (found, counts) in all {
        let same = kept.iter_mut().find(|kept| kept.signature == found.known.signature);
        if let Some(same) = same {
            same.cases += if counts { found.known.cases } else { 0 };
            continue;
        }
        let number = u32::try_from(kept.len() + 1).unwrap_or(u32::MAX);
        copy_folder(&found.folder, &into.join(format!("finding-{number}")))?;
        kept.push(super::run_files::Known { number, ..found.known.clone() });
    }
    let mut unfinished = 0;
    for run in runs.iter().chain(spare) {
        let known = |number| run.findings.iter().any(|found| found.known.number == number);
        for (folder, number) in finding_folders(&run.folder)? {
            if !number.is_some_and(known) {
                unfinished += 1;
                copy_folder(&folder, &into.join(format!("{UNFINISHED}{unfinished}")))?;
            }
        }
    }
    Ok(kept)
}

fn started(runs: &[RunRecord], first: &RunRecord, into: &RunFolder, lacking: &[String]) -> Started {
    let name = |run: &RunRecord| run.folder.file_name().map(|it| it.to_string_lossy().into_owned());
    let mut notes: Vec<String> = Vec::new();
    for note in runs.iter().flat_map(|run| &run.started.notes) {
        if !notes.contains(note) {
            notes.push(note.clone());
        }
    }
    notes.extend(lacking.iter().cloned());
    Started {
        run: into.run().to_string(),
        jobs: runs.iter().map(|run| run.started.jobs).sum(),
        notes,
        shard: None,
        resumes: None,
        merged: runs.iter().filter_map(name).collect(),
        ..first.started.clone()
    }
}
