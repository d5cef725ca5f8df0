//! What settings do to a command line, and what they may not do.

use super::*;
use crate::cli::Cli;
use clap::{CommandFactory, Parser};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// A home with a settings file, or without.
struct Home {
    folder: tempfile::TempDir,
    variables: Vec<(OsString, OsString)>,
}

impl Home {
    fn new(text: Option<&str>) -> Home {
        let folder = tempfile::tempdir().expect("a folder");
        if let Some(text) = text {
            std::fs::write(folder.path().join("lbaudit.toml"), text).expect("written");
        }
        Home { folder, variables: Vec::new() }
    }
    fn with(mut self, name: &str, value: &str) -> Home {
        self.variables.push((name.into(), value.into()));
        self
    }
    fn file(&self) -> PathBuf {
        self.folder.path().join("lbaudit.toml")
    }
    fn complete(&self, line: &str) -> Result<Completed, SettingsError> {
        let owner = std::fs::metadata(self.folder.path()).expect("there").uid();
        let places = Places { files: vec![self.file()], owners: vec![owner] };
        let words = std::iter::once("lbaudit").chain(line.split_whitespace()).map(OsString::from);
        let around = Around { variables: self.variables.clone(), places };
        complete(words.collect(), &Cli::command(), &around)
    }
    fn words(&self, line: &str) -> String {
        let completed = self.complete(line).expect("completes");
        assert_eq!(completed.warnings, Vec::<String>::new());
        let words: Vec<String> = completed
            .words
            .iter()
            .skip(1)
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        words.join(" ")
    }
    fn refusal(&self, line: &str) -> String {
        self.complete(line).expect_err("refused").to_string()
    }
}

const LAB: &str = r#"
[default]
run-dir = "/var/runs"
max_failures = 3
seed = 1

[default.soak]
duration = "8h"

[profile.lab]
seed = 7
test = ["no_*", "12"]
insecure = true
"#;

#[test]
fn flag_beats_variable_beats_profile_beats_default() {
    let home = Home::new(Some(LAB));
    assert_eq!(home.words("check"), "check --seed=1 --max-failures=3 --run-dir=/var/runs");
    let seed_of = |home: &Home, line: &str| {
        let words = home.words(line);
        let found = words.split(' ').find(|word| word.starts_with("--seed")).map(str::to_owned);
        found.unwrap_or_default()
    };
    assert_eq!(seed_of(&home, "check --config-profile lab"), "--seed=7");
    let home = home.with("LBAUDIT_SEED", "9");
    assert_eq!(seed_of(&home, "check --config-profile=lab"), "--seed=9");
    assert!(!home.words("check --seed 5").contains("--seed="));
    assert!(!home.words("check --seed=5").contains("--seed=9"));
}

#[test]
fn a_key_reaches_only_commands_that_have_its_flag_and_a_commands_table_only_that_command() {
    let home = Home::new(Some(LAB));
    assert!(home.words("soak").contains("--duration=8h"));
    assert!(!home.words("check").contains("--duration"));
    assert_eq!(home.words("list bugs"), "list --run-dir=/var/runs bugs");
    assert_eq!(home.words("sim serve"), "sim serve", "the simulator is not the client");
    let served =
        Home::new(Some("[default]\nprofile = \"bounds\"\n[default.sim-serve]\nprofile = \"b\""));
    assert_eq!(served.words("sim serve"), "sim serve --profile=b");
}

#[test]
fn lists_repeat_a_flag_and_switches_switch_it() {
    let home = Home::new(Some(LAB));
    let words = home.words("suite --config-profile lab");
    assert!(words.contains("--test=no_* --test=12") && words.contains(" --insecure "), "{words}");
    let home = home.with("LBAUDIT_INSECURE", "no").with("LBAUDIT_TEST", "1,2");
    let words = home.words("suite --config-profile lab");
    assert!(words.contains("--test=1 --test=2") && !words.contains("insecure"), "{words}");
    assert!(!words.contains("no_*"), "{words}");
}

#[test]
fn a_weaker_value_gives_way_to_a_flag_that_excludes_it() {
    let home = Home::new(Some(
        "[default]\njwt-file = \"t\"\ninsecure = true\nplant = [\"bit63-dropped\"]\n",
    ));
    let words = home.words("suite --jwt-command prog --pin-sha256 aa");
    assert!(!words.contains("--jwt-file") && !words.contains("--insecure"), "{words}");
    assert!(!home.words("replay --judge f").contains("plant"), "clap knows these two");
    assert!(home.words("suite").contains("--jwt-file=t"));
    let token = Home::new(Some("[default]\njwt-file = \"t\"\n")).with("LIGHTBITS_JWT", "secret");
    assert_eq!(token.words("suite"), "suite", "the environment is stronger than the file");
    let both = token.with("LBAUDIT_JWT_FILE", "u");
    assert_eq!(both.words("suite"), "suite --jwt-file=u");
    let no = Home::new(Some("[default]\npin-sha256 = [\"aa\"]\n")).with("LBAUDIT_INSECURE", "0");
    assert_eq!(no.words("suite"), "suite --pin-sha256=aa", "a no excludes nothing");
}

#[test]
fn consent_and_tokens_are_refused_wherever_they_stand() {
    for (text, flag) in [
        ("[default]\ndestroy = \"0123456789ab\"", "--destroy"),
        ("[profile.x]\nallow_signature = [\"ext4\"]", "--allow-signature"),
        ("[default.clean]\nyes = true", "--yes"),
    ] {
        let refusal = Home::new(Some(text)).refusal("check");
        assert!(refusal.contains(flag) && refusal.contains("command line"), "{refusal}");
    }
    let refusal = Home::new(Some("[profile.x]\njwt = \"canary\"")).refusal("list bugs");
    assert!(refusal.contains("jwt-file") && !refusal.contains("canary"), "{refusal}");
    let refusal = Home::new(None).with("LBAUDIT_DESTROY", "0123456789ab").refusal("suite");
    assert!(refusal.contains("LBAUDIT_DESTROY"), "{refusal}");
    let refusal = Home::new(None).with("LBAUDIT_JWT", "canary").refusal("suite");
    assert!(refusal.contains("LIGHTBITS_JWT") && !refusal.contains("canary"), "{refusal}");
}

#[test]
fn what_nobody_knows_is_warned_about_with_the_nearest_name() {
    let home = Home::new(Some("seed = 1\n[default]\nendpiont = \"x\"\n[default.sook]\nseed = 1"));
    let completed = home.complete("check").expect("completes");
    assert_eq!(completed.warnings.len(), 3, "{:?}", completed.warnings);
    for (warning, part) in completed.warnings.iter().zip(["`seed` stands", "`endpoint`", "`soak`"])
    {
        assert!(warning.contains(part), "{warning}");
    }
    assert_eq!(completed.words.len(), 2);
}

#[test]
fn a_value_of_the_wrong_sort_is_refused_with_its_place() {
    for (text, line, part) in [
        ("[default]\nseed = true", "check", "[default]: --seed takes a value"),
        ("[profile.x]\ninsecure = \"yes\"", "suite --config-profile x", "true or false"),
        ("[default]\nseed = [1, 2]", "check", "one value"),
        ("[default]\nseed = 2026-01-01", "check", "default.seed is a datetime"),
        ("[default]\nseed = [[1]]", "check", "default.seed is a array"),
        ("[profile]\nx = 1", "check", "profile.x is no table"),
        ("[default\njwt = \"canary\"", "check", "line 1"),
    ] {
        let refusal = Home::new(Some(text)).refusal(line);
        assert!(refusal.contains(part) && !refusal.contains("canary"), "{text}: {refusal}");
    }
    let refusal = Home::new(None).with("LBAUDIT_INSECURE", "perhaps").refusal("suite");
    assert!(refusal.contains("LBAUDIT_INSECURE"), "{refusal}");
}

#[test]
fn a_profile_or_file_that_is_not_there_is_refused() {
    let home = Home::new(Some(LAB));
    let refusal = home.refusal("check --config-profile lap");
    assert!(refusal.contains("did you mean `lab`"), "{refusal}");
    assert!(Home::new(None).refusal("check --config-profile lab").contains("no lbaudit.toml"));
    assert!(home.refusal("check --config /no/such/file").contains("/no/such/file"));
    assert_eq!(home.words("check --config /dev/null"), "check --config /dev/null");
    let by_variable = home.with("LBAUDIT_CONFIG_PROFILE", "lab").with("LBAUDIT_CONFIG", "");
    assert!(by_variable.words("check").contains("--seed=7"));
}

#[test]
fn a_strangers_file_is_not_taken_just_because_it_lies_there() {
    let home = Home::new(Some("[default]\njwt-command = \"evil\""));
    let places = Places { files: vec![home.file()], owners: Vec::new() };
    assert!(matches!(file::read_found(&places), Err(SettingsError::Stranger { .. })));
    std::fs::set_permissions(home.file(), PermissionsExt::from_mode(0o666)).expect("changed");
    assert!(home.refusal("suite").contains("anybody can write"));
    let named = format!("suite --config {}", home.file().display());
    assert!(home.words(&named).contains("--jwt-command=evil"), "named is trusted");
}

#[test]
fn a_run_that_goes_on_keeps_its_own_flags() {
    let home = Home::new(Some(LAB)).with("LBAUDIT_CASES", "5");
    for line in ["soak --resume latest", "soak --resume=latest"] {
        let words = home.words(line);
        assert!(words.starts_with("soak --run-dir=/var/runs --resume"), "{words}");
    }
}

#[test]
fn help_is_given_whatever_the_file_says_and_commands_without_flags_do_not_read_it() {
    let home = Home::new(Some("["));
    assert_eq!(home.words("suite --help"), "suite --help");
    assert_eq!(home.words("explain G7"), "explain G7");
    assert_eq!(home.words("no-such-command"), "no-such-command");
    assert!(home.refusal("suite").contains("line 1"));
}

#[test]
fn short_flags_and_aliases_are_flags_that_were_given() {
    let home = Home::new(Some("[default]\nquiet = true\nverbose = true"));
    assert_eq!(home.words("suite -qv"), "suite -qv");
    assert_eq!(home.words("suite -q"), "suite --verbose -q");
}

#[test]
fn every_flag_that_has_a_sound_value_can_stand_in_a_file() {
    for (command, flags) in flags::leaves(&Cli::command()) {
        for flag in flags {
            assert_eq!(flag.name, flag.name.to_lowercase(), "{command}");
            assert!(!flag.name.contains('_'), "keys may be spelt with either");
            assert!(flag.spellings.contains(&format!("--{}", flag.name)));
        }
    }
    let home = Home::new(Some("[default]\nsnapshot = \"s1\"\nfrom = 4096\n"));
    let words = home.complete("diff").expect("completes").words;
    assert!(Cli::try_parse_from(words).is_ok(), "a required flag may come from the file");
}
