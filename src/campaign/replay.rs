//! Runs scenarios from files: one, exactly as it is, or a folder of regressions.
//!
//! A regression that names planted bugs makes two claims: without them it passes, with them it fails
//! in a way that the catalogue lists. One that names none is of a real defect, mended since: it
//! passes. Not covered: making scenarios.

use super::case::{CaseOutcome, RUN, run_case};
use super::inproc::InProcess;
use super::selftest::Planted;
use crate::engine::{Contradiction, precheck};
use crate::oracle::{Checks, Verdict};
use crate::scenario::{Op, Scenario, TraceError, read_trace};
use crate::sim::SimError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A trace larger than this is not read, in bytes.
const TRACE_MAX: u64 = 1 << 30;
/// A scenario that writes more than this is not run, in bytes.
const WRITTEN_MAX_BYTES: u128 = 4 << 30;

/// A scenario that cannot be read from its file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file.
    #[error("cannot read {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in it.
    #[error("{path}: {source}")]
    Trace {
        /// Which.
        path: PathBuf,
        /// Why.
        source: TraceError,
    },
    /// It is too large to be one.
    #[error("{path} has {bytes} bytes, more than any trace")]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is a device, a pipe or a folder.
    #[error("{path} is no plain file; give a trace")]
    NoFile {
        /// Which.
        path: PathBuf,
    },
    /// It would fill the memory.
    #[error(
        "{path} writes more than {} GiB, which would have to be kept in memory; cut its writes",
        WRITTEN_MAX_BYTES >> 30
    )]
    Greedy {
        /// Which.
        path: PathBuf,
    },
    /// It plants a bug that there is not.
    #[error("{path} plants `{name}`, and there is no such bug; see `lbaudit list bugs`")]
    Bug {
        /// Which.
        path: PathBuf,
        /// The name.
        name: String,
    },
}

/// Reads a scenario.
///
/// # Errors
/// [`LoadError`].
pub fn load(path: &Path) -> Result<Scenario, LoadError> {
    let file = |source| LoadError::File { path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(file)?;
    if !meta.is_file() {
        return Err(LoadError::NoFile { path: path.to_owned() });
    }
    let bytes = meta.len();
    if bytes > TRACE_MAX {
        return Err(LoadError::TooLarge { path: path.to_owned(), bytes });
    }
    let text = fs::read_to_string(path).map_err(file)?;
    let scenario =
        read_trace(&text).map_err(|source| LoadError::Trace { path: path.to_owned(), source })?;
    match scenario.header.planted.iter().find(|name| Planted::from_name(name).is_none()) {
        Some(name) => Err(LoadError::Bug { path: path.to_owned(), name: name.clone() }),
        None if written_bytes(&scenario) > WRITTEN_MAX_BYTES => {
            Err(LoadError::Greedy { path: path.to_owned() })
        }
        None => Ok(scenario),
    }
}

/// Bytes that a scenario writes at most, as often as it says so. A simulated array keeps them in
/// memory, and a trace may be a stranger's.
fn written_bytes(scenario: &Scenario) -> u128 {
    let blocks = scenario.header.volumes.values().map(|shape| shape.block.bytes());
    let block = u128::from(blocks.max().unwrap_or(0));
    let mut lbas = 0u128;
    for step in &scenario.steps {
        step.op.each(&mut |op| {
            // A discard of what was never written takes no memory.
            if !matches!(op, Op::Discard { .. } | Op::WriteZeroes { .. }) {
                lbas += op.changes().map_or(0, |at| u128::from(at.len_lbas().get()));
            }
        });
    }
    lbas * block
}

/// Why `scenario` blames an honest array: the shadow model contradicts one of its own checks.
///
/// # Errors
/// The simulator's, if the header describes no world.
pub fn contradiction(scenario: &Scenario) -> Result<Option<Contradiction>, SimError> {
    let model = InProcess::of_header(&scenario.header, RUN)?.model();
    Ok(precheck(scenario, &model).err())
}

/// The traces of a folder, by name.
///
/// # Errors
/// When the folder cannot be read.
pub fn traces_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = entries.collect::<io::Result<Vec<PathBuf>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    Ok(paths)
}

/// What a regression came to.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// Without planted bugs.
    pub honest: CaseOutcome,
    /// With them, and their names.
    pub planted: Option<(CaseOutcome, Vec<String>)>,
}

impl Replayed {
    /// What is not as it should be, if anything is.
    pub fn wrong(&self) -> Option<String> {
        if let Some(violation) = self.honest.verdict.violation() {
            return Some(format!("must pass, and shows {violation}"));
        }
        if let Verdict::Unknown(reason) = &self.honest.verdict {
            return Some(format!("could not be judged: {reason}"));
        }
        let (outcome, names) = self.planted.as_ref()?;
        let bugs = names.iter().filter_map(|name| Planted::from_name(name));
        let listed: Vec<&str> = bugs.flat_map(Planted::kinds).copied().collect();
        let names = names.join(" and ");
        match outcome.kind() {
            Some(kind) if listed.contains(&kind.name()) => None,
            Some(kind) => {
                let listed = listed.join(" or ");
                Some(format!("with {names} planted it shows {kind}, which must be {listed}"))
            }
            None => Some(format!("does not show {names} any more")),
        }
    }
    /// What it shows, in a few words.
    pub fn words(&self) -> String {
        match &self.planted {
            None => format!("passes, {} operations", self.honest.ops),
            Some((outcome, names)) => {
                let kind = outcome.kind().map_or("nothing", crate::oracle::Kind::name);
                format!("passes, and with {} planted shows {kind}", names.join(" and "))
            }
        }
    }
}

/// Runs a regression, and with its planted bugs a second time.
///
/// # Errors
/// The simulator's, if the header describes no world.
pub fn regression(scenario: &Scenario) -> Result<Replayed, SimError> {
    let mut honest = scenario.clone();
    let names = std::mem::take(&mut honest.header.planted);
    let run = |scenario: &Scenario| run_case(scenario, Checks::ALL, &mut |_| ());
    let planted = match names.is_empty() {
        true => None,
        false => Some((run(scenario)?, names)),
    };
    Ok(Replayed { honest: run(&honest)?, planted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockSize, Extent, Geometry, LbaCount, Policy, Role};
    use crate::campaign::nearest::witnesses;
    use crate::scenario::{Header, Label, Op, write_trace};

    fn writes(lba: u64, planted: &str) -> Scenario {
        let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(256), fresh: true };
        let volumes = [(Role::Source, shape), (Role::Target, shape)].into();
        let mut header = Header::new(volumes, Policy::Exact, "a test");
        header.planted = vec![planted.to_owned()];
        let ops = [
            Op::Write { at: Extent::lbas(lba, 1) },
            Op::Take { label: Label(0), wait: true },
            Op::Diff { snap: Label(0), base: None, from: Default::default(), between_pages: None },
        ];
        Scenario::new(header, ops)
    }

    #[test]
    fn a_regression_passes_honestly_and_shows_its_bug() {
        let good = regression(&writes(63, "bit63-dropped")).expect("sets up");
        assert_eq!(good.wrong(), None);
        assert_eq!(good.words(), "passes, and with bit63-dropped planted shows missed");
        let blunt = regression(&writes(5, "bit63-dropped")).expect("sets up");
        assert_eq!(blunt.wrong().as_deref(), Some("does not show bit63-dropped any more"));
        let mut nothing = writes(5, "bit63-dropped");
        nothing.steps.truncate(1);
        let nothing = regression(&nothing).expect("sets up");
        assert_eq!(nothing.wrong().as_deref(), Some("could not be judged: nothing was compared"));
    }

    #[test]
    fn traces_are_read_and_what_is_none_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let text = write_trace(&writes(1, "bit63-dropped")).expect("encodes");
        fs::write(path("0002-b.jsonl"), &text).expect("a file");
        fs::write(path("0001-a.jsonl"), text.replace("bit63-dropped", "no-such-bug")).expect("one");
        fs::write(path("README"), "not a trace").expect("a file");
        let found = traces_in(folder.path()).expect("it can be read");
        assert_eq!(found, [path("0001-a.jsonl"), path("0002-b.jsonl")]);
        assert!(
            matches!(load(&found[0]), Err(LoadError::Bug { name, .. }) if name == "no-such-bug")
        );
        assert_eq!(load(&found[1]).expect("reads"), writes(1, "bit63-dropped"));
        assert!(matches!(load(&path("README")), Err(LoadError::Trace { .. })));
        assert!(matches!(load(&path("nowhere")), Err(LoadError::File { .. })));
    }

    #[test]
    fn a_trace_that_would_fill_the_memory_is_not_even_begun() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("greedy.jsonl");
        // So many LBAs of 64 bytes are just within what is kept in memory.
        let most = u64::try_from(WRITTEN_MAX_BYTES / 64).expect("small");
        let with = |ops: Vec<Op>| {
            let mut scenario = writes(1, "bit63-dropped");
            scenario.steps = ops.into_iter().map(Into::into).collect();
            fs::write(&path, write_trace(&scenario).expect("encodes")).expect("a file");
            load(&path)
        };
        let half = Extent::lbas(0, most / 2);
        let write = || Op::Write { at: half };
        assert!(with(vec![write(), write()]).is_ok());
        let inside = Op::On { volume: Role::Target, op: Box::new(Op::Zero { at: half }) };
        for one_more in [Op::Rewrite { at: Extent::lbas(0, 1) }, inside] {
            let refused = with(vec![write(), write(), one_more]).expect_err("too much");
            assert!(matches!(refused, LoadError::Greedy { .. }), "{refused}");
            assert!(refused.to_string().contains("cut its writes"), "{refused}");
        }
        let at = Extent::lbas(0, most);
        assert!(with(vec![write(), Op::Discard { at }, Op::WriteZeroes { at }]).is_ok());
    }

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions")
    }

    /// `UPDATE_GOLDEN=1` writes what is missing and renews what has changed.
    #[test]
    fn the_witness_of_every_planted_bug_is_a_regression() {
        let folder = repository();
        let paths = traces_in(&folder).expect("the folder is there");
        let number = |path: &Path| -> Option<u32> {
            path.file_name()?.to_str()?.split_once('-')?.0.parse().ok()
        };
        let mut next = paths.iter().filter_map(|path| number(path)).max().unwrap_or(0) + 1;
        for (bug, mut witness) in witnesses() {
            witness.header.planted = vec![bug.name().to_owned()];
            let ending = format!("-{}.jsonl", bug.name());
            let known = paths.iter().find(|path| path.to_string_lossy().ends_with(&ending));
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                let path = known.cloned().unwrap_or_else(|| {
                    next += 1;
                    folder.join(format!("{:04}{ending}", next - 1))
                });
                fs::write(path, write_trace(&witness).expect("encodes")).expect("it can be kept");
                continue;
            }
            let known = known.unwrap_or_else(|| panic!("no regression for {}", bug.name()));
            assert_eq!(load(known).expect("it reads"), witness, "{}", bug.name());
        }
        assert_eq!(witnesses().len(), Planted::all().len(), "every bug has a witness");
    }

    #[test]
    fn every_regression_of_the_repository_is_as_it_should_be() {
        let folder = repository();
        let paths = traces_in(&folder).expect("the folder is there");
        assert!(!paths.is_empty());
        let wrong: Vec<String> = paths
            .iter()
            .filter_map(|path| {
                let scenario = load(path).expect("it reads");
                let wrong = regression(&scenario).expect("sets up").wrong()?;
                Some(format!("{}: {wrong}", path.display()))
            })
            .collect();
        assert_eq!(wrong, Vec::<String>::new());
    }
}
