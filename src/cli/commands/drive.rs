//! One campaign of `check` or `soak` from its first line to its last, whatever it runs on: its files,
//! what an earlier run of the same campaign did, the cases, the summary. Not covered: targets
//! (`super::check` and its neighbours), findings (`super::hunt`).

use super::check::{Ground, Job, Mode};
use super::hunt::{Hunt, Limits};
use super::publish::Publisher;
use super::report::after_campaign;
use crate::campaign::check::{Campaign, run_cases};
use crate::campaign::covered::covered;
use crate::campaign::investigate::Investigator;
use crate::campaign::reserve;
use crate::campaign::run_files::{
    Checkpoint, RUN, SHARD, Started, Stream, checkpoint, save_coverage, started,
};
use crate::campaign::run_log::RunLog;
use crate::campaign::store::{RunFolder, believe, carry_over, find_run, is_alive, take_lock};
use crate::cli::args::Form;
use crate::cli::campaign_args::CampaignArgs;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::{Cli, Context};
use crate::engine::{GENERATOR_VERSION, ShrinkBudget};
use crate::report::{CampaignHeader, Reached, header_lines};
use clap::{Command, CommandFactory as _};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Runs that shrinking may take at most, whatever its time.
const SHRINK_RUNS: u64 = 100_000;

/// Runs the cases of a job on a ground, looks into what fails and reports.
///
/// # Errors
/// If the run's folder cannot be written, or the run to go on with is no such one.
pub(super) fn drive(
    job: &Job<'_>,
    ground: &Ground<'_>,
    folder: &RunFolder,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let args = job.args;
    let stream = stream(job, ground);
    let earlier = args.resume.as_deref().map(|run| earlier(args, run, &stream)).transpose();
    let earlier = earlier.inspect_err(|_| {
        // On an array the journal of this run's proofs is in it.
        if ground.dear.is_none() {
            drop(folder.discard());
        }
    })?;
    let cannot = |error: std::io::Error| {
        Failure::could_not(format!("cannot write {}: {error}", folder.path().display()))
    };
    // Held to the end: one alone goes on with a run.
    let (before, resumes, _lock) = match earlier {
        Some((path, mut before, lock)) => {
            let findings: Vec<u32> = before.findings.iter().map(|known| known.number).collect();
            carry_over(&path, folder.path(), &findings).map_err(cannot)?;
            before.so_far.totals.forget_unjudged();
            before.problems.clear();
            (Checkpoint { exit_code: None, ..before }, Some(path), Some(lock))
        }
        None => (Checkpoint::begin(stream), None, None),
    };
    let begun = begin((job, ground), resumes.as_deref(), folder, context)?;
    // From now on this run can be gone on with.
    before.save(folder.path()).and_then(|()| folder.point_latest()).map_err(cannot)?;
    // Where it cannot be, the run does without.
    let _ = reserve::set_aside(folder.path());
    let publisher = Publisher::new(args, begun, folder.path())?;
    if resumes.is_some() {
        let (cases, seconds) = (before.so_far.totals.cases, before.seconds);
        context.ui.say(&format!("goes on after {cases} cases and {seconds:.0} s"));
    }
    let log = RunLog::open(folder.path()).map_err(cannot)?;
    let stop = context.stop.clone();
    let runs = ground.dear.as_ref().map_or(SHRINK_RUNS, |dear| dear.runs);
    let budget = ShrinkBudget { time: args.shrink_time.0, runs };
    let runners = (ground.runner, ground.recorder);
    let mut investigator = Investigator::new(folder.path(), runners, budget, stop.flag());
    if let Some(dear) = &ground.dear {
        (investigator.tries, investigator.stand_in) = (dear.tries, true);
        investigator.by_hand = dear.again.by_hand;
    }
    let spent = Duration::try_from_secs_f64(before.seconds).unwrap_or_default();
    let campaign = Campaign {
        source: ground.source,
        runner: ground.cases,
        shard: job.shard,
        cases: job.cases.unwrap_or(u64::MAX),
        time: job.time.map(|time| time.saturating_sub(spent)),
        jobs: job.jobs,
        batch: ground.batch,
        stop: stop.flag(),
    };
    let limits = Limits {
        time: job.time,
        findings: args.max_failures.or((job.mode == Mode::Check).then_some(1)),
        disk_bytes: args.max_disk.0.get(),
    };
    let so_far = before.so_far.clone();
    let mut hunt = Hunt::new(context, &investigator, (job.seed, limits), before, (log, publisher));
    hunt.spell_folder(&args.output.run_dir);
    hunt.api = ground.api;
    if let Some(dear) = &ground.dear {
        hunt = hunt.on_target(dear.patience, dear.again.clone());
    }
    let so_far = run_cases(&campaign, so_far, &mut hunt);
    let coverage = covered(ground.source, job.shard, &so_far.done, ground.reach);
    // A summary is worth more than this file.
    hunt.note_broken(save_coverage(folder.path(), &coverage));
    let done = hunt.finish(so_far, Some(Reached::of(&coverage)), folder);
    after_campaign(args, folder.path(), done, context)
}

/// What makes the cases what they are.
fn stream(job: &Job<'_>, ground: &Ground<'_>) -> Stream {
    let args = job.args;
    let mut stream = Stream::from([
        ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("generator".to_owned(), GENERATOR_VERSION.to_string()),
        ("seed".to_owned(), job.seed.to_string()),
        ("target".to_owned(), ground.target.clone()),
        ("profile".to_owned(), job.profile.name.to_owned()),
        (SHARD.to_owned(), job.shard.to_string()),
    ]);
    let mut add = |name: &str, value: Option<String>| {
        stream.extend(value.map(|value| (name.to_owned(), value)));
    };
    add("ops", args.ops.map(|ops| ops.to_string()));
    add("policy", args.policy.or(ground.policy).map(|policy| policy.to_string()));
    add("plant", (!args.plant.is_empty()).then(|| args.plant.join(",")));
    add("transport", args.transport.map(|how| format!("{how:?}").to_lowercase()));
    add("region", args.region.map(|size| size.0.to_string()));
    add("region-at", args.region_at.map(|size| size.0.to_string()));
    add("max-live-snapshots", args.max_live_snapshots.map(|most| most.to_string()));
    add("clones", args.clones.then(|| "yes".to_owned()));
    add("source-uuid", args.target.source_uuid.map(|uuid| uuid.to_string()));
    add("target-uuid", args.target.target_uuid.map(|uuid| uuid.to_string()));
    stream
}

/// The run that this one goes on with, and its lock.
fn earlier(
    args: &CampaignArgs,
    run: &str,
    stream: &Stream,
) -> Result<(PathBuf, Checkpoint, File), Failure> {
    let refuse = |why: String| Failure::usage(format!("cannot go on with `{run}`: {why}"));
    let path = find_run(&args.output.run_dir, run).map_err(|error| refuse(error.to_string()))?;
    let kept = checkpoint(&path).map_err(|error| refuse(error.to_string()))?;
    let kept = kept.ok_or_else(|| refuse("it has no checkpoint.json".to_owned()))?;
    let keys = stream.keys().chain(kept.stream.keys());
    let value = |stream: &Stream, key| stream.get(key).map_or("nothing", |value| value).to_owned();
    match keys.into_iter().find(|&key| stream.get(key) != kept.stream.get(key)) {
        Some(key) => {
            let (here, there) = (value(stream, key), value(&kept.stream, key));
            Err(refuse(format!(
                "{key} is {here} here and {there} there, so its cases would not be the same"
            )))
        }
        None => {
            let lock = take_lock(&path)
                .ok_or_else(|| refuse("somebody else goes on with it already".to_owned()))?;
            Ok((path, kept, lock))
        }
    }
}

fn header(job: &Job<'_>, ground: &Ground<'_>) -> CampaignHeader {
    let args = job.args;
    let budget = match (job.cases, job.time) {
        (Some(cases), Some(time)) => format!("{cases} cases or {} s", time.as_secs()),
        (Some(cases), None) => format!("{cases} cases"),
        (None, Some(time)) => format!("{} s", time.as_secs()),
        (None, None) => "until stopped".to_owned(),
    };
    let mut notes = ground.notes.clone();
    if let Some(dear) = &ground.dear {
        let seconds = args.shrink_time.0.as_secs();
        notes.push(format!(
            "shrinking a finding takes at most {seconds} s and {} candidates on the target, each run up to {} times",
            dear.runs, dear.tries
        ));
    }
    CampaignHeader {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        target: ground.target.clone(),
        seed: job.seed,
        generator: GENERATOR_VERSION,
        profile: match args.profile.as_str() {
            "default" if ground.dear.is_none() => args.profile.clone(),
            _ => job.profile.name.to_owned(),
        },
        policy: args.policy.or(ground.policy).map(|policy| policy.to_string()),
        planted: args.plant.clone(),
        jobs: job.jobs,
        budget,
        notes,
    }
}

/// Says what will run, on the screen and in the run's folder.
fn begin(
    (job, ground): (&Job<'_>, &Ground<'_>),
    resumes: Option<&Path>,
    folder: &RunFolder,
    context: &mut Context,
) -> Result<Started, Failure> {
    let header = header(job, ground);
    let resumes = resumes.and_then(Path::file_name).and_then(|name| name.to_str());
    let begun = Started {
        event: "run_started".to_owned(),
        run: folder.run().to_string(),
        arguments: job.args.arguments.clone(),
        version: header.version.clone(),
        seed: header.seed,
        generator: header.generator,
        target: header.target.clone(),
        profile: header.profile.clone(),
        policy: header.policy.clone(),
        planted: header.planted.clone(),
        jobs: header.jobs,
        cases: job.cases,
        seconds: job.time.map(|time| time.as_secs_f64()),
        notes: header.notes.clone(),
        capabilities: ground.capabilities.clone(),
        shard: (job.shard.count() > 1).then(|| job.shard.to_string()),
        resumes: resumes.map(str::to_owned),
        merged: Vec::new(),
    };
    match context.ui.form {
        Form::Jsonl => context.ui.event(&begun),
        Form::Text => header_lines(&header).iter().for_each(|line| context.ui.print(line)),
    }
    let cannot = |error: std::io::Error| {
        Failure::could_not(format!("cannot write {}: {error}", folder.path().display()))
    };
    let text = serde_json::to_string_pretty(&begun).map_err(|error| cannot(error.into()))?;
    let mut file = folder.create_file(RUN).map_err(cannot)?;
    writeln!(file, "{text}").map_err(cannot)?;
    Ok(begun)
}

/// Flags that are given anew, because they are consent or secrets, or what would be done by them is more
/// than testing: a command that is run, a file that is written, a server that is not proved.
const ANEW: [&str; 10] = [
    "--destroy",
    "--allow-signature",
    "--jwt",
    "--jwt-command",
    "--insecure",
    "--on-finding",
    "--metrics-file",
    "--junit",
    "--html",
    "--resume",
];

/// The command line of the run that this one goes on with, then the flags that were given now, which
/// count instead of the same flags then. Those that are given anew are not taken over.
///
/// # Errors
/// If there is no such run, it is not one of random checking, or others could have written it.
pub fn resumed(args: &CampaignArgs, now: &[String]) -> Result<Option<Vec<String>>, Failure> {
    let Some(run) = &args.resume else { return Ok(None) };
    let refuse = |why: String| Failure::usage(format!("cannot go on with `{run}`: {why}"));
    let path = find_run(&args.output.run_dir, run).map_err(|error| refuse(error.to_string()))?;
    if is_alive(&path) {
        return Err(refuse("it still goes on".to_owned()));
    }
    let kept = started(&path).map_err(|error| refuse(error.to_string()))?;
    let kept = kept.ok_or_else(|| refuse("it is no run of random checking".to_owned()))?;
    believe(&path).map_err(|error| refuse(error.to_string()))?;
    let given = now.iter().filter_map(|word| name_of(word));
    let given: Vec<&str> = given.chain(ANEW).collect();
    let mut line = without(&kept.arguments, &given);
    // Settled then, however they were given.
    let (seed, shard) = (("--seed", Some(kept.seed.to_string())), ("--shard", kept.shard));
    for (flag, value) in [seed, shard] {
        if let Some(value) = value.filter(|_| !given.contains(&flag)) {
            line = without(&line, &[flag]);
            line.extend([flag.to_owned(), value]);
        }
    }
    // The first word is the command: the one that is given now.
    if let (Some(first), Some(now)) = (line.first_mut(), now.first()) {
        first.clone_from(now);
    }
    line.extend(without(now.get(1..).unwrap_or_default(), &["--resume"]));
    // `latest` is soon the run that goes on.
    line.extend(["--resume".to_owned(), path.to_string_lossy().into_owned()]);
    Ok(Some(line))
}

/// The name of a long flag, with its dashes.
fn name_of(word: &str) -> Option<&str> {
    let name = word.split_once('=').map_or(word, |(name, _)| name);
    name.starts_with("--").then_some(name)
}

/// Words of a command line without these flags and their values.
fn without(words: &[String], flags: &[&str]) -> Vec<String> {
    let soak = Cli::command();
    let soak = soak.find_subcommand("soak");
    let takes_value = |name: &str| {
        let mut flags = soak.into_iter().flat_map(Command::get_arguments);
        let flag = flags.find(|flag| flag.get_long() == name.strip_prefix("--"));
        flag.is_none_or(|flag| flag.get_action().takes_values())
    };
    let mut drop_value = false;
    let keep = |word: &&String| {
        if std::mem::take(&mut drop_value) {
            return false;
        }
        let dropped = name_of(word).filter(|name| flags.contains(name));
        drop_value = dropped.is_some_and(|name| !word.contains('=') && takes_value(name));
        dropped.is_none()
    };
    words.iter().filter(keep).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consent_and_secrets_are_not_taken_over() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<String>>();
        let line = words("soak --destroy abc --seed 3 --jwt=*** --jwt *** --destroy=x --ops 9");
        assert_eq!(without(&line, &["--destroy", "--jwt"]), words("soak --seed 3 --ops 9"));
        let line = words("soak --insecure --seed 3 --clones --on-finding page --ops 9");
        assert_eq!(without(&line, &ANEW), words("soak --seed 3 --clones --ops 9"));
    }
}
