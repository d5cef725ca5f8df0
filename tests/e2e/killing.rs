//! kill -9 at random points of runs and of `clean`: whatever the array has left is listed, by the
//! journal and by name, and `clean` removes exactly that; a killed soak goes on.
//!
//! `E2E_KILL_POINTS` is the number of points (20), `E2E_KILL_SEED` repeats a drawn sequence.

use crate::support::{Attach, Home, Server, fuse_works, one_that_cleans, say};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

/// What is killed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Victim {
    Suite,
    Check,
    Soak,
    /// `clean --yes`, after a killed suite.
    Clean,
    /// `sync` of a snapshot that was there.
    Sync,
    /// `audit` that takes snapshots of its own.
    Audit,
    /// `check --clones`.
    Clones,
}

const VICTIMS: [Victim; 7] = [
    Victim::Suite,
    Victim::Check,
    Victim::Soak,
    Victim::Clean,
    Victim::Sync,
    Victim::Audit,
    Victim::Clones,
];
/// The volumes that are there before and after.
const VOLUMES: usize = 2;

/// What becomes of the run folder before `clean` looks.
#[derive(Clone, Copy, Debug)]
enum Journal {
    Kept,
    Lost,
    /// With its whole folder, so that nobody knows whether the run goes on elsewhere.
    FolderLost,
}

/// Snapshots of somebody else, and one that only looks like ours.
const FOREIGN: [&str; 3] = [SYNCED, "tsync-0000000000000abc-1-x", "nightly"];
/// The one of the source volume with something in it.
const SYNCED: &str = "weekly";

/// The first moments of a process get more than their share of the points.
const EARLY: Duration = Duration::from_millis(40);

/// SplitMix64.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
    /// A moment of something that takes `length`, or just after its end.
    fn moment(&mut self, length: Duration) -> Duration {
        let within = if self.below(4) == 0 { EARLY } else { length + length / 10 };
        Duration::from_micros(self.below(u64::try_from(within.as_micros()).unwrap()))
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[derive(Default)]
struct Tally {
    points: u64,
    ended_before: u64,
    left: u64,
    most_left: usize,
    unlisted: u64,
    not_in_journal: u64,
    foreign_touched: u64,
    following_runs: u64,
    clones_left: u64,
    resumed: u64,
}

struct Scene {
    home: Home,
    server: Server,
    draw: Draw,
    tally: Tally,
}

impl Scene {
    fn args(&mut self, victim: Victim) -> Vec<String> {
        let seed = self.draw.below(1 << 32).to_string();
        let campaign = ["--region", "8MiB", "--seed", &seed, "--cases", "3"];
        let target = self.server.target();
        match victim {
            Victim::Suite => target.args(&["suite"], &["--test", "12", "--test", "13"]),
            Victim::Check => target.args(&["check"], &campaign),
            Victim::Soak => target.args(&["soak"], &campaign),
            Victim::Clean => target.reading().args(&["clean", "--yes"], &[]),
            Victim::Sync => target.args(&["sync"], &["--snapshot", SYNCED]),
            Victim::Audit => {
                let mut alone = target.reading();
                (alone.source_device, alone.target_device, alone.target_uuid) = (None, None, None);
                let few = ["--snapshot", SYNCED, "--snapshots", "3"];
                alone.args(&["audit"], &few)
            }
            Victim::Clones => target.args(&["check", "--clones"], &campaign),
        }
    }

    fn run(&self, args: &[String]) -> crate::support::Finished {
        self.home.run(args, Some(&self.server.token))
    }

    /// Starts it and kills it at that moment. Answers whether it had ended by then.
    fn kill(&self, args: &[String], at: Duration) -> bool {
        let started = Instant::now();
        let run = self.home.start(args, Some(&self.server.token));
        std::thread::sleep(at.saturating_sub(started.elapsed()));
        run.signal(Signal::KILL);
        let run = run.finish();
        // A copy of a snapshot that others have written past since is told as such.
        assert!(matches!(run.code, None | Some(0 | 3)), "{run}");
        run.code.is_some()
    }

    /// The snapshots that somebody has left, but for the foreign ones. Those have to be there.
    fn left(&mut self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = self.server.api().snapshot_names().into_iter().collect();
        let there = FOREIGN.iter().filter(|name| names.remove(**name)).count();
        self.tally.foreign_touched += (FOREIGN.len() - there) as u64;
        names
    }

    /// The names that the journals of all runs say were about to be given.
    fn intended(&self) -> BTreeSet<String> {
        let journals = self.home.runs().into_iter().map(|run| run.join("journal.jsonl"));
        let texts = journals.filter_map(|path| fs::read_to_string(path).ok());
        let mut names = BTreeSet::new();
        for line in texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()) {
            // A torn line was not followed by a call.
            let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
            names.extend(line["entry"]["intent"]["name"].as_str().map(str::to_owned));
        }
        names
    }

    /// One point: kill, look, clean, look.
    fn point(&mut self, victim: Victim, lengths: &[Duration; VICTIMS.len()]) {
        if victim == Victim::Clean {
            // Late, so that there is something to clean.
            let (args, length) = (self.args(Victim::Suite), lengths[Victim::Suite as usize]);
            self.kill(&args, length * 3 / 5);
        }
        let (args, at) = (self.args(victim), self.draw.moment(lengths[victim as usize]));
        self.tally.ended_before += u64::from(self.kill(&args, at));
        self.tally.points += 1;

        let left = self.left();
        self.tally.left += left.len() as u64;
        self.tally.most_left = self.tally.most_left.max(left.len());
        let intended = self.intended();
        self.tally.not_in_journal += left.difference(&intended).count() as u64;
        let journal = match self.draw.below(3) {
            // A volume is deleted only if a journal says that this program made it.
            _ if victim == Victim::Clones => Journal::Kept,
            0 => Journal::Kept,
            1 => Journal::Lost,
            _ => Journal::FolderLost,
        };
        self.lose(journal);
        self.tally.clones_left += (self.server.api().volume_names().len() - VOLUMES) as u64;
        let listed = self.listed(journal);
        // What was being deleted may have gone in the meantime.
        let still = self.left();
        self.tally.unlisted +=
            left.intersection(&still).filter(|name| !listed.contains(*name)).count() as u64;

        if victim == Victim::Soak && matches!(journal, Journal::Kept) {
            self.resume(&left);
        }
        let mut args = self.args(Victim::Clean);
        args.extend(matches!(journal, Journal::FolderLost).then(|| "--unknown-runs".to_owned()));
        let cleaned = self.run(&args);
        cleaned.assert_code(0);
        let (point, kept) = (self.tally.points, self.left());
        assert!(kept.is_empty(), "point {point}, {victim:?} at {at:?}: {kept:?} stay: {cleaned}");
        let volumes = self.server.api().volume_names();
        assert_eq!(volumes.len(), VOLUMES, "point {point}, {victim:?} at {at:?}: {cleaned}");
        // Old journals would be read again at every point.
        let _ = fs::remove_dir_all(self.home.path().join("lbaudit-runs"));
    }

    /// A killed soak goes on where it was, if it had come far enough to keep where that is, and leaves
    /// nothing of either run.
    fn resume(&mut self, left: &BTreeSet<String>) {
        let has_begun = |run: &std::path::PathBuf| run.join("checkpoint.json").exists();
        if !self.home.runs().iter().any(has_begun) {
            return;
        }
        let args = self.server.target().args(&["soak", "--resume", "latest"], &["--cases", "4"]);
        let resumed = self.run(&args);
        resumed.assert_code(0);
        let still = self.left();
        assert!(left.is_disjoint(&still) && still.is_empty(), "{still:?} stay: {resumed}");
        self.tally.resumed += 1;
    }

    fn lose(&self, journal: Journal) {
        for run in self.home.runs() {
            match journal {
                Journal::Kept => {}
                // Killed before it had one.
                Journal::Lost => drop(fs::remove_file(run.join("journal.jsonl"))),
                Journal::FolderLost => fs::remove_dir_all(run).unwrap(),
            }
        }
    }

    /// What `clean` lists without deleting anything.
    fn listed(&self, journal: Journal) -> BTreeSet<String> {
        let target = self.server.target().reading();
        let list = self.run(&target.args(&["clean", "--output", "jsonl"], &[]));
        list.assert_code(0);
        let lines = list.json();
        let mut names = BTreeSet::new();
        for line in lines.iter().filter(|line| line["event"] == "snapshot") {
            let state = if matches!(journal, Journal::FolderLost) { "unknown" } else { "ended" };
            assert_eq!((&line["run_state"], &line["deleted"]), (&state.into(), &false.into()));
            names.insert(line["name"].as_str().unwrap().to_owned());
        }
        assert!(FOREIGN.iter().all(|name| !names.contains(*name)), "{list}");
        names
    }

    /// A run on the same volumes, to its end.
    fn following_run(&mut self) {
        let args = self.args(Victim::Check);
        self.run(&args).assert_code(0);
        assert_eq!(self.left(), BTreeSet::new());
        self.tally.following_runs += 1;
    }
}

#[test]
fn whatever_is_killed_at_any_moment_every_snapshot_is_listed_and_clean_removes_just_those() {
    if !fuse_works() {
        return;
    }
    let _alone = one_that_cleans();
    let points = number("E2E_KILL_POINTS").unwrap_or(20);
    let seed = number("E2E_KILL_SEED").unwrap_or_else(|| getrandom::u64().unwrap());
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &["--delay", "25ms"]);
    server.write(0, 0, 8 << 20);
    for (i, name) in FOREIGN.iter().enumerate() {
        server.api().take(&server.volume(i % VOLUMES, "uuid"), name);
    }
    let mut scene = Scene { home, server, draw: Draw(seed), tally: Tally::default() };
    let lengths = VICTIMS.map(|victim| {
        let args = scene.args(victim);
        let whole = scene.run(&args);
        whole.assert_code(if victim == Victim::Sync { 3 } else { 0 });
        whole.took
    });
    let started = Instant::now();
    for point in 0..points {
        scene.point(VICTIMS[usize::try_from(point).unwrap() % VICTIMS.len()], &lengths);
        if point % 20 == 19 {
            scene.following_run();
        }
    }
    scene.following_run();
    let Tally { left, most_left, unlisted, not_in_journal, foreign_touched, .. } = scene.tally;
    let Tally { points, ended_before, following_runs, clones_left, resumed, .. } = scene.tally;
    say(&format!(
        "kill -9: seed {seed}; points tried {points} in {:.0} s, of which {ended_before} after the \
         end; whole lengths {lengths:.1?}; snapshots left {left}, at most {most_left} at once; \
         snapshots left unlisted {unlisted}, in no journal {not_in_journal}; foreign snapshots \
         touched {foreign_touched}; clones left {clones_left} and cleaned; runs resumed {resumed}; runs \
         that followed and worked {following_runs}",
        started.elapsed().as_secs_f64()
    ));
    assert_eq!((unlisted, not_in_journal, foreign_touched), (0, 0, 0), "seed {seed}");
    assert!(points < 20 || left > 0, "nothing was ever left: nothing was shown");
    scene.server.stop(Signal::TERM);
    scene.home.assert_nothing_left();
}
