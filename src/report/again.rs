//! How a finding is seen once more, told by what its run was asked: for reports that are made of a
//! folder alone. Not covered: the lines on the screen (`super::finding`).

use super::finding::Again;
use crate::campaign::run_files::Started;

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
}

fn target_flags(arguments: &[String]) -> String {
    let mut flags = String::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let name = word.split_once('=').map_or(word.as_str(), |(name, _)| name);
        let Some((_, takes)) = TARGET_FLAGS.iter().find(|(flag, _)| *flag == name) else {
            continue;
        };
        flags.push(' ');
        flags.push_str(word);
        if *takes
            && !word.contains('=')
            && let Some(value) = words.next()
        {
            flags.push(' ');
            flags.push_str(value);
        }
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_the_target_are_taken_over_and_no_others() {
        let line = "soak --endpoint https://a --seed 3 --insecure --destroy=abc --cases 9 --jwt *** --region 1GiB";
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        assert_eq!(
            target_flags(&words),
            " --endpoint https://a --insecure --destroy=abc --region 1GiB"
        );
    }
}
