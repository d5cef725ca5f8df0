//! The commands that see a finding once more, as they can be copied into a shell; on the target of its
//! run, told by what that run was asked, for reports that are made of a folder alone.
//!
//! Not covered: where the lines stand (`super::finding`, `super::html`).

use super::finding::Again;
use crate::campaign::by_hand::{shell_word, volumes_needed};
use crate::campaign::finding::{BY_HAND, REPRO};
use crate::campaign::run_files::Started;
use crate::scenario::Scenario;
use std::path::Path;

/// Flags of a run on an array that a run of one scenario needs as well, and whether a value follows.
const TARGET_FLAGS: [(&str, bool); 19] = [
    ("--endpoint", true),
    ("--source-uuid", true),
    ("--target-uuid", true),
    ("--source-device", true),
    ("--target-device", true),
    ("--project", true),
    ("--jwt-file", true),
    ("--ca-file", true),
    ("--pin-sha256", true),
    ("--insecure", false),
    ("--destroy", true),
    ("--region", true),
    ("--region-at", true),
    ("--clones", false),
    ("--snapshot-timeout", true),
    ("--bitmap-order", true),
    ("--policy", true),
    ("--backend", true),
    ("--qsd", true),
];

/// Variable of the endpoint, the first on a line by hand.
pub(super) const ENDPOINT: &str = "LBAUDIT_ENDPOINT";
/// Variable of the token, which stands in no report.
pub(super) const TOKEN: &str = "LIGHTBITS_JWT";

impl Again {
    /// On the target of that run. `by_hand`: whether there is a script for people.
    pub fn of_run(started: &Started, by_hand: bool) -> Again {
        if started.target.starts_with("simulator") {
            return Again { by_hand, ..Again::on_simulator() };
        }
        let command = match started.target.starts_with("qemu") {
            true => "lbaudit replay",
            false => "lbaudit check --scenario",
        };
        let flags = target_flags(&started.arguments);
        Again { command: command.to_owned(), flags, by_hand }
    }

    /// The line that sees the finding in `folder` once more.
    pub fn line(&self, folder: &Path) -> String {
        format!("{} {}{}", self.command, path_word(&folder.join(REPRO)), self.flags)
    }

    /// The line that runs the script for people: on an array with what it needs before it, as far as
    /// the flags tell, the token excepted. Elsewhere there is nothing to tell, and the script asks.
    pub fn by_hand_line(&self, folder: &Path, scenario: &Scenario) -> Option<String> {
        let script = format!("sh {}", path_word(&folder.join(BY_HAND)));
        let known = words_of(&self.flags);
        if !self.by_hand || known.is_empty() {
            return self.by_hand.then_some(script);
        }
        let value = |flag: &str| value_of(&known, flag);
        let mut line = String::new();
        let mut set = |name: &str, value: &str| {
            line.push_str(&format!("{name}={} ", shell_word(value)));
        };
        set(ENDPOINT, value("--endpoint").unwrap_or("https://HOST"));
        value("--project")
            .filter(|name| *name != "default")
            .iter()
            .for_each(|it| set("PROJECT", it));
        value("--ca-file").iter().for_each(|file| set("CURL_CA_BUNDLE", file));
        if known.iter().any(|word| word == "--insecure") {
            set("CURL_OPTIONS", "--insecure");
        }
        for role in volumes_needed(scenario) {
            let (name, flag) = (role.name().to_uppercase(), role.name());
            let uuid = value(&format!("--{flag}-uuid"));
            // What udev calls a namespace; the script makes sure that it is the volume.
            let udev = uuid.map(|uuid| format!("/dev/disk/by-id/nvme-uuid.{uuid}"));
            let device = value(&format!("--{flag}-device")).or(udev.as_deref());
            set(&format!("{name}_UUID"), uuid.unwrap_or("UUID"));
            set(&format!("{name}_DEVICE"), device.unwrap_or("DEVICE"));
        }
        if let Some(file) = value("--jwt-file") {
            line.push_str(&format!("{TOKEN}=\"$(cat {})\" ", shell_word(file)));
        }
        Some(line + &script)
    }

    /// The line that keeps it among the regressions, which are replayed on the simulator.
    pub fn keep_line(&self, folder: &Path) -> Option<String> {
        let simulated = self.command == Again::on_simulator().command && self.flags.is_empty();
        simulated.then(|| format!("cp {} regressions/", path_word(&folder.join(REPRO))))
    }
}

/// A command line of this program as it could be typed.
pub fn command_line(arguments: &[String]) -> String {
    let words = arguments.iter().map(|word| shell_word(word));
    ["lbaudit".into()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

/// A path as a word that no command takes for a flag.
fn path_word(path: &Path) -> String {
    let text = path.display().to_string();
    let text = if text.starts_with('-') { format!("./{text}") } else { text };
    shell_word(&text).into_owned()
}

fn target_flags(arguments: &[String]) -> String {
    let mut flags = String::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let name = word.split_once('=').map_or(word.as_str(), |(name, _)| name);
        let Some((_, takes)) = TARGET_FLAGS.iter().find(|(flag, _)| *flag == name) else {
            continue;
        };
        let value = if *takes && !word.contains('=') { words.next() } else { None };
        for word in [Some(word), value].into_iter().flatten() {
            flags.push(' ');
            flags.push_str(&shell_word(word));
        }
    }
    flags
}

/// The words of a line that [`shell_word`] made.
fn words_of(line: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        if letter.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        match letter {
            '\'' => word.extend(letters.by_ref().take_while(|letter| *letter != '\'')),
            '\\' => word.extend(letters.next()),
            letter => word.push(letter),
        }
    }
    words.extend(word);
    words
}

/// What a flag was given, as the next word or after an equals sign.
fn value_of<'w>(words: &'w [String], flag: &str) -> Option<&'w str> {
    let next = words.iter().position(|word| word == flag).and_then(|at| words.get(at + 1));
    let joined = || words.iter().find_map(|word| word.strip_prefix(flag)?.strip_prefix('='));
    next.map(String::as_str).or_else(joined)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockSize, Extent, Geometry, LbaCount, Policy, Role};
    use crate::scenario::{Header, Op};

    #[test]
    fn the_flags_of_the_target_are_taken_over_and_no_others() {
        let line = "soak --endpoint https://a --seed 3 --insecure --destroy=abc --cases 9 --jwt *** --region 1GiB";
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        assert_eq!(
            target_flags(&words),
            " --endpoint https://a --insecure --destroy=abc --region 1GiB"
        );
    }

    fn scenario(ops: Vec<Op>) -> Scenario {
        let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(64), fresh: true };
        Scenario::new(Header::new([(Role::Source, shape)].into(), Policy::Exact, ""), ops)
    }

    #[test]
    fn the_line_by_hand_names_all_that_the_script_needs_but_the_token() {
        let again = |flags: &str| Again {
            command: "lbaudit check --scenario".to_owned(),
            flags: flags.to_owned(),
            by_hand: true,
        };
        let (folder, write) = (Path::new("b h/finding-1"), Op::Write { at: Extent::lbas(0, 1) });
        let all = again(
            " --endpoint https://a --project p --source-uuid=29 --source-device '/dev/it'\\''s' \
             --target-uuid 30 --insecure --jwt-file /run/t",
        );
        let by_hand = |again: &Again, ops| again.by_hand_line(folder, &scenario(ops));
        assert_eq!(
            by_hand(&all, vec![write.clone()]).as_deref(),
            Some(
                "LBAUDIT_ENDPOINT=https://a PROJECT=p CURL_OPTIONS=--insecure SOURCE_UUID=29 \
                 SOURCE_DEVICE='/dev/it'\\''s' LIGHTBITS_JWT=\"$(cat /run/t)\" sh 'b h/finding-1/repro.sh'"
            )
        );
        let both = vec![Op::On { volume: Role::Target, op: Box::new(write) }];
        let line = by_hand(&all, both.clone()).expect("there is a script");
        assert!(
            line.contains(" TARGET_UUID=30 TARGET_DEVICE=/dev/disk/by-id/nvme-uuid.30 "),
            "{line}"
        );
        let line = by_hand(&again(" --region 1GiB"), both).expect("there is a script");
        let open =
            "LBAUDIT_ENDPOINT=https://HOST SOURCE_UUID=UUID SOURCE_DEVICE=DEVICE TARGET_UUID=UUID";
        assert!(line.starts_with(open) && !line.contains("JWT"), "{line}");
        let plain = by_hand(&Again::on_simulator(), Vec::new());
        assert_eq!(plain.as_deref(), Some("sh 'b h/finding-1/repro.sh'"));
        assert_eq!(by_hand(&Again { by_hand: false, ..all }, Vec::new()), None);
    }

    #[test]
    fn a_folder_of_any_name_is_one_word_of_each_command() {
        let again = Again::on_simulator();
        let folder = Path::new("-x\";touch y;#$(id)/finding-1");
        let word = "'./-x\";touch y;#$(id)/finding-1/repro.jsonl'";
        assert_eq!(again.line(folder), format!("lbaudit replay {word}"));
        assert_eq!(again.keep_line(folder), Some(format!("cp {word} regressions/")));
        let words = ["soak", "--run-dir", "b h", "--plant=a"].map(str::to_owned);
        assert_eq!(command_line(&words), "lbaudit soak --run-dir 'b h' --plant=a");
        assert_eq!(words_of(&command_line(&words))[1..], words);
    }
}
