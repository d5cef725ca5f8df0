//! A scenario as a shell script for people who do not have this tool: curl and dd against a real
//! endpoint, everything that names it from environment variables, a question before it writes.
//!
//! The blocks it writes are random bytes: by hand it is the *answers* that are compared, not the
//! contents. Where any honest array must report a change, or must not, whatever the volume held
//! before, the script looks for it in the last answer, and its status says what it found; of all else
//! its reader is the judge. An array that fails is never called wrong. What no interface of an array offers (restart, clone) it asks its reader to do.
//! Not covered: copying a diff; `lbaudit sync` does that.

use super::inproc::InProcess;
use crate::array::{Array as _, escape_text};
use crate::block::{Extent, Lba, LbaCount, LbaSet, Role, RunId};
use crate::engine::foretold;
use crate::model::Model;
use crate::oracle::{Kind, Violation};
use crate::scenario::{Label, Op, Scenario};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// LBAs of a violation that are looked for in an answer, at most.
const LOOKED_FOR: usize = 8;

/// The script for `scenario`, whose last step shows `violation`.
pub fn script(scenario: &Scenario, violation: &Violation) -> String {
    let mut text = String::from("#!/bin/sh\n");
    let words: String = violation.to_string().chars().filter(|c| !c.is_control()).collect();
    let mut needs = Needs::default();
    let mut body = String::new();
    for (number, step) in (1..).zip(&scenario.steps) {
        let _ = writeln!(body, "say {}", quoted(&format!("{number:>3} {}", step.op)));
        if let Some(fault) = &step.fault {
            let fault = format!("while this happens: {} at call {}", fault.kind, fault.nth);
            let _ = writeln!(body, "manual {}", quoted(&fault));
        }
        for line in lines(Role::Source, &step.op, &mut needs) {
            let _ = writeln!(body, "{line}");
        }
    }
    let _ = writeln!(text, "# {words}");
    text.push_str(HEAD);
    for (role, name) in [(Role::Target, "TARGET"), (Role::Neighbour, "NEIGHBOUR")] {
        if needs.roles.contains(&role) {
            let _ = writeln!(text, "need {name}_UUID 'UUID of the {role} volume'");
            let _ = writeln!(text, "need {name}_DEVICE 'its block device'");
        }
    }
    text.push_str(ASKED);
    if needs.blkdiscard {
        text.push_str("# dd cannot discard.\n");
        text.push_str("command -v blkdiscard >/dev/null || { echo 'this one needs blkdiscard (util-linux) as well' >&2; exit 2; }\n");
    }
    text.push_str(FUNCTIONS);
    text.push_str("consent \"$SOURCE_UUID\" \"$SOURCE_DEVICE\"\n");
    for (role, name) in [(Role::Target, "TARGET"), (Role::Neighbour, "NEIGHBOUR")] {
        if needs.roles.contains(&role) {
            let _ = writeln!(text, "consent \"${name}_UUID\" \"${name}_DEVICE\"");
        }
    }
    text.push_str("trap tidy EXIT\ntrap 'exit 130' INT\ntrap 'exit 143' TERM\n\n");
    text.push_str(&body);
    let _ = writeln!(text, "say {}", quoted(&format!("What was found: {words}")));
    let judged = looked_for(scenario, violation);
    if judged.is_empty() {
        text.push_str("unclear=1\n");
    }
    for (wanted, lba) in judged {
        let _ = writeln!(text, "judge {wanted} {lba}");
    }
    text.push_str("verdict\n");
    text
}

/// LBAs of the violation, and whether the last answer must hold each: only what the shadow model
/// demands of any array on volumes of which it knows nothing.
fn looked_for(scenario: &Scenario, violation: &Violation) -> Vec<(&'static str, Lba)> {
    let (mut new, mut volumes) = (scenario.header.clone(), scenario.header.volumes.clone());
    new.volumes.values_mut().for_each(|shape| shape.fresh = true);
    volumes.values_mut().for_each(|shape| shape.fresh = false);
    let run = RunId::from_u128(1);
    let Ok(world) = InProcess::of_header(&new, run) else { return Vec::new() };
    let asked = scenario.steps.last().map(|step| &step.op);
    let same = matches!(asked, Some(Op::Diff { snap, base, .. })
        if violation.snap == Some(*snap) && violation.base == *base);
    let model = Model::new(run, &volumes, world.array().capabilities());
    let Some(bounds) = foretold(scenario, &model).filter(|_| same && !violation.older_data) else {
        return Vec::new();
    };
    let ends =
        violation.extents.runs().iter().take(LOOKED_FOR).flat_map(|run| [run.start(), run.last()]);
    let holds =
        |set: &LbaSet, lba| Extent::new(lba, LbaCount::new(1)).is_some_and(|at| set.covers(at));
    let mut judged: Vec<(&'static str, Lba)> = match violation.kind {
        Kind::Missed => {
            ends.filter(|lba| holds(&bounds.must, *lba)).map(|lba| ("yes", lba)).collect()
        }
        Kind::Leaked => {
            ends.filter(|lba| !holds(&bounds.may, *lba)).map(|lba| ("no", lba)).collect()
        }
        _ => Vec::new(),
    };
    judged.dedup();
    judged
}

/// What a script needs besides a source volume.
#[derive(Default)]
struct Needs {
    roles: BTreeSet<Role>,
    blkdiscard: bool,
}

const HEAD: &str = r#"# Written by lbaudit. It OVERWRITES blocks of the volumes below and takes snapshots, which it
# deletes again when it ends. Blocks are 4096 bytes.
set -eu
for program in curl dd awk sed tr cksum; do
  command -v "$program" >/dev/null || { echo "this needs $program" >&2; exit 2; }
done
missing=
need() { # NAME WHAT
  eval "[ -n \"\${$1:-}\" ]" || missing="$missing
  $1  $2"
}
need LBAUDIT_ENDPOINT 'https://HOST of the array'
need LIGHTBITS_JWT 'a token'
need SOURCE_UUID 'UUID of the source volume'
need SOURCE_DEVICE 'its block device'
"#;

/// What is missing is said at once, before anything is asked or done.
const ASKED: &str = r#"[ -z "$missing" ] || {
  printf 'this needs, each as NAME=VALUE in its environment:%s\n' "$missing" >&2
  exit 2
}
PROJECT=${PROJECT:-default}
# For example CURL_OPTIONS='--cacert FILE'; '--insecure' where the certificate names another host.
CURL_OPTIONS=${CURL_OPTIONS:-}
"#;

const FUNCTIONS: &str = r#"
say() { printf '%s\n' "$*"; }
manual() { say "BY HAND: $*"; printf 'Enter when done '; read -r _; }
# api METHOD PATH [curl arguments]; the token never stands on a command line.
api() {
  method=$1 path=$2; shift 2
  printf 'header = "Authorization: Bearer %s"\n' "$LIGHTBITS_JWT" |
    curl --silent --show-error --fail --max-time 60 --config - $CURL_OPTIONS --request "$method" \
      --header 'Content-Type: application/json' "$@" \
      "$LBAUDIT_ENDPOINT/api/v2/projects/$PROJECT/$path"
}
# field NAME: the value of a field of the JSON on standard input.
field() { tr -d '\n' | sed -n 's/.*"'"$1"'" *: *"\{0,1\}\([^",}]*\).*/\1/p'; }
unwell() { say "the array did not do it: $*"; exit 3; }
taken=
take() { # LABEL VOLUME [nowait]
  made=$(api POST snapshots --data '{"name":"by-hand-'"$$-$1"'","sourceVolumeUUID":"'"$2"'","projectName":"'"$PROJECT"'"}') ||
    unwell "snapshot $1"
  uuid=$(printf '%s' "$made" | field UUID)
  [ -n "$uuid" ] || unwell "snapshot $1: $made"
  eval "$1=\$uuid"
  taken="$taken $uuid"
  [ "${3:-}" = nowait ] || available "$uuid"
}
available() {
  n=0
  until [ "$(api GET "snapshots/$1" | field state)" = Available ]; do
    n=$((n + 1)); [ $n -lt 180 ] || { say "snapshot $1 is not Available after 180 s"; exit 3; }
    sleep 1
  done
}
gone() {
  n=0
  # That it is not found any more is what is waited for, not a fault to tell of.
  until [ "$(api GET "snapshots/$1" --output /dev/null --write-out '%{http_code}' 2>/dev/null)" = 404 ]; do
    n=$((n + 1)); [ $n -lt 180 ] || { say "snapshot $1 is not gone after 180 s"; return 0; }
    sleep 1
  done
}
delete() { api DELETE "snapshots/$1" >/dev/null || unwell "deletion of $1"; [ "${2:-}" = nowait ] || gone "$1"; }
settle() { for uuid in $taken; do
  case $(api GET "snapshots/$uuid" 2>/dev/null | field state) in
    Creating) available "$uuid" ;; Deleting) gone "$uuid" ;;
  esac
done; }
between() { :; }
# diff SNAPSHOT BASE FROM PAGES: prints each page; runs `between` after that many of them.
diff() {
  next_lba=$3 page=0 pages=
  while :; do
    page_text=$(api GET "snapshots/diff/$1?offsetLBA=$next_lba${2:+&baseSnapshotUUID=$2}") ||
      unwell "diff of $1${2:+ against $2}"
    say "     $page_text"
    page=$((page + 1))
    pages="$pages$page_text"
    [ "$page" != "$4" ] || between
    next_lba=$(printf '%s' "$page_text" | field nextOffsetLBA)
    [ "${next_lba:-0}" != 0 ] || return 0
  done
}
put() { dd if=/dev/urandom of="$1" bs=4096 seek="$2" count="$3" iflag=fullblock oflag=direct conv=notrunc status=none; }
zero() { dd if=/dev/zero of="$1" bs=4096 seek="$2" count="$3" oflag=direct conv=notrunc status=none; }
rewrite() {
  dd if="$1" bs=4096 skip="$2" count="$3" iflag=direct status=none |
    dd of="$1" bs=4096 seek="$2" iflag=fullblock oflag=direct conv=notrunc status=none
}
show() { dd if="$1" bs=4096 skip="$2" count="$3" iflag=direct status=none | cksum; }
flush() { dd if=/dev/null of="$1" conv=notrunc,fsync status=none; }
tidy() {
  for uuid in $taken; do api DELETE "snapshots/$uuid" >/dev/null 2>&1 || :; done
  for uuid in $taken; do gone "$uuid"; done
}

# consent UUID DEVICE: is the device that volume, and may it be overwritten?
consent() {
  [ -e "$2" ] || { say "there is no $2; nothing was done"; exit 2; }
  wwid=/sys/class/block/$(basename "$(readlink -f "$2")")/wwid
  if [ -r "$wwid" ]; then
    found=$(tr 'A-F' 'a-f' <"$wwid")
    [ "$found" = "uuid.$1" ] || { say "$2 is $found, not volume $1; nothing was done"; exit 2; }
  else
    say "$2 has no wwid: make sure yourself that it is volume $1."
  fi
  say "This overwrites blocks of volume $1 through $2."
  printf 'Type its last 12 digits to go on: '
  read -r answer
  [ "$answer" = "${1##*-}" ] || { say 'nothing was done'; exit 2; }
}
# reported LBA: whether the last diff reports it: yes, no, or unknown. A bitmap is 8 bytes in base64,
# byte k for LBAs 8k to 8k+7 of the range.
reported() {
  printf '%s' "$pages" | tr '{\n' '\n ' | awk -v lba="$1" '
    function number(name) {
      if (!match($0, "\"" name "\" *: *\"?[0-9]+")) return -1
      text = substr($0, RSTART, RLENGTH); sub(/.*[^0-9]/, "", text); return text + 0
    }
    BEGIN { digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"; says = "no" }
    /"(lbaStart|[A-Za-z]*[bB]it[mM]ap)"/ {
      start = number("lbaStart"); if (start < 0) start = 0
      if (lba < start || lba >= start + 64) next
      if (!match($0, /"[A-Za-z]*[bB]it[mM]ap" *: *"[A-Za-z0-9+\/]+="/) || substr($0, RSTART + RLENGTH - 14, 1) != "\"") { says = "unknown"; next }
      code = substr($0, RSTART + RLENGTH - 13, 11); bit = lba - start
      # Of the 6 bits of each digit the first is the most significant of its bytes.
      at = int(bit / 8) * 8 + 7 - bit % 8
      digit = index(digits, substr(code, int(at / 6) + 1, 1)) - 1
      if (int(digit / 2 ^ (5 - at % 6)) % 2) says = "yes"
    }
    END { print says }'
}
pages= wrong=0 unclear=0
judge() { # yes|no LBA
  case $(reported "$2") in
    "$1") say "LBA $2 in the last diff: right" ;;
    unknown) say "LBA $2 in the last diff: a bitmap of unknown form"; unclear=1 ;;
    *) say "LBA $2 in the last diff: WRONG"; wrong=1 ;;
  esac
}
# Status 1: it happened again; 0: it did not; 3: look at the answers yourself.
verdict() {
  [ $wrong = 0 ] || { say 'It happened again.'; exit 1; }
  [ $unclear = 0 ] || { say 'Not judged here: compare the answers above with what was found.'; exit 3; }
  say 'It did not happen this time.'
}

"#;

/// One word of a command line that people copy: as it is where that is harmless, else quoted. What
/// could steer a terminal is written out, so that a name made of it can be read, though not copied.
pub fn shell_word(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.into(),
        false => quoted(&escape_text(text, usize::MAX)).into(),
    }
}

/// The volumes whose UUIDs and devices the script of a scenario asks for.
pub fn volumes_needed(scenario: &Scenario) -> BTreeSet<Role> {
    let mut needs = Needs { roles: [Role::Source].into(), blkdiscard: false };
    for step in &scenario.steps {
        lines(Role::Source, &step.op, &mut needs);
    }
    needs.roles.remove(&Role::Clone);
    needs.roles
}

/// A word for the shell, whatever it holds.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn device(role: Role, needs: &mut Needs) -> Option<&'static str> {
    needs.roles.insert(role);
    match role {
        Role::Source => Some("\"$SOURCE_DEVICE\""),
        Role::Target => Some("\"$TARGET_DEVICE\""),
        Role::Neighbour => Some("\"$NEIGHBOUR_DEVICE\""),
        Role::Clone => None,
    }
}

fn volume(role: Role, needs: &mut Needs) -> Option<&'static str> {
    device(role, needs)?;
    match role {
        Role::Source => Some("\"$SOURCE_UUID\""),
        Role::Target => Some("\"$TARGET_UUID\""),
        Role::Neighbour => Some("\"$NEIGHBOUR_UUID\""),
        Role::Clone => None,
    }
}

/// The commands of one operation on the volume of `role`.
fn lines(role: Role, op: &Op, needs: &mut Needs) -> Vec<String> {
    let by_hand = |what: &str| vec![format!("manual {}", quoted(what))];
    let mut on_device = |command: &str, at: &Extent| match device(role, needs) {
        Some(device) => {
            vec![format!("{command} {device} {} {}", at.start(), at.len_lbas())]
        }
        None => by_hand(&format!("{op}, on the {role}")),
    };
    let nowait = |wait: &bool| if *wait { "" } else { " nowait" };
    match op {
        Op::Write { at } => on_device("put", at),
        Op::Rewrite { at } => on_device("rewrite", at),
        Op::Zero { at } | Op::WriteZeroes { at } => on_device("zero", at),
        Op::Read { snap: None, at } => on_device("show", at),
        Op::Discard { at } => {
            needs.blkdiscard = true;
            let (start, len) = (at.start().get() * 4096, at.len_lbas().get() * 4096);
            match device(role, needs) {
                Some(device) => {
                    vec![format!("blkdiscard --offset {start} --length {len} {device}")]
                }
                None => by_hand(&format!("{op}, on the {role}")),
            }
        }
        Op::Flush => match device(role, needs) {
            Some(device) => vec![format!("flush {device}")],
            None => Vec::new(),
        },
        Op::Take { label, wait } => match volume(role, needs) {
            Some(volume) => vec![format!("take {label} {volume}{}", nowait(wait))],
            None => by_hand(&format!("{op}, of the {role}")),
        },
        Op::Delete { label, wait } => vec![format!("delete {}{}", snapshot(*label), nowait(wait))],
        Op::Wait => vec!["settle".to_owned()],
        Op::Concurrent(ops) => {
            let mut all = Vec::new();
            for op in ops {
                all.push(format!("{{ {}; }} &", lines(role, op, needs).join("; ")));
            }
            // Labels are set in this shell, not in a child, so snapshots are taken last and here.
            all.sort_by_key(|line| line.contains("take "));
            let all = all.into_iter().map(|line| match line.contains("{ take ") {
                true => line.trim_end_matches(" &").to_owned(),
                false => line,
            });
            all.chain(["wait".to_owned()]).collect()
        }
        Op::Rollback { label } => match volume(role, needs) {
            Some(_) => vec![format!(
                "api PUT \"volumes/${}_UUID/rollback\" --data '{{\"srcSnapshotUUID\":\"'{}'\"}}' || unwell rollback",
                role.name().to_uppercase(),
                snapshot(*label)
            )],
            None => by_hand(&op.to_string()),
        },
        Op::On { volume, op } => lines(*volume, op, needs),
        Op::Diff { snap, base, from, between_pages } => {
            let base = base.map_or_else(|| "''".to_owned(), snapshot);
            let (pages, hook) = match between_pages {
                Some((pages, op)) => (*pages, lines(role, op, needs).join("; ")),
                None => (0, String::new()),
            };
            let ask = format!("diff {} {base} {from} {pages}", snapshot(*snap));
            let hook = (!hook.is_empty()).then(|| format!("between() {{ {hook}; }}"));
            hook.into_iter().chain([ask]).collect()
        }
        Op::Sync { snap, base, .. } => {
            let base = base.map_or_else(|| "''".to_owned(), snapshot);
            let copy = "copy these LBAs from the source to the target device, for example with `lbaudit sync`, then compare the two";
            vec![format!("diff {} {base} 0 0", snapshot(*snap)), format!("manual {}", quoted(copy))]
        }
        Op::Read { snap: Some(_), .. }
        | Op::Resize { .. }
        | Op::Restart { .. }
        | Op::Clone { .. }
        | Op::CreateVolume { .. }
        | Op::DeleteVolume { .. }
        | Op::SyncChain { .. } => by_hand(&op.to_string()),
        Op::Check(check) => vec![format!("say {}", quoted(&format!("    expected: {check}")))],
    }
}

fn snapshot(label: Label) -> String {
    format!("\"${{{label}:-gone}}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockSize, Geometry, Policy};
    use crate::scenario::{Check, Header, SyncSource};
    use std::fs::Permissions;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Command, Output, Stdio};

    fn at(lba: u64, len: u64) -> Extent {
        Extent::lbas(lba, len)
    }

    fn everything() -> Vec<Op> {
        let s = |n| Label(n);
        let write = || Op::Write { at: at(64, 8) };
        vec![
            write(),
            Op::Take { label: s(0), wait: true },
            Op::Discard { at: at(64, 8) },
            Op::Rewrite { at: at(1, 1) },
            Op::Zero { at: at(2, 1) },
            Op::WriteZeroes { at: at(3, 1) },
            Op::Flush,
            Op::Read { snap: None, at: at(0, 1) },
            Op::Read { snap: Some(s(0)), at: at(0, 1) },
            Op::Concurrent(vec![Op::Take { label: s(1), wait: true }, write()]),
            Op::Delete { label: s(0), wait: false },
            Op::Wait,
            Op::Rollback { label: s(1) },
            Op::Resize { len: LbaCount::new(4096) },
            Op::Restart { clean: false },
            Op::Clone { label: s(1), volume: Role::Clone },
            Op::On { volume: Role::Clone, op: Box::new(write()) },
            Op::On { volume: Role::Neighbour, op: Box::new(write()) },
            Op::Diff {
                snap: s(1),
                base: Some(s(0)),
                from: Lba::new(65),
                between_pages: Some((1, Box::new(Op::Delete { label: s(0), wait: true }))),
            },
            Op::Sync { snap: s(1), base: None, from: SyncSource::Live, during: vec![] },
            Op::Check(Check::EmptyDiff),
        ]
    }

    fn of(ops: Vec<Op>) -> String {
        let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(4096), fresh: true };
        let header = Header::new([(Role::Source, shape)].into(), Policy::Exact, "");
        let at = LbaSet::from(at(66, 2));
        let violation = Violation::new(Kind::Missed, "it's\nwrong; $(reboot)").at(at);
        let violation = violation.about(Label(0), None);
        script(&Scenario::new(header, ops), &violation)
    }

    #[test]
    fn every_operation_gives_a_script_that_the_shell_can_read() {
        let text = of(everything());
        let mut shell =
            Command::new("sh").arg("-n").stdin(Stdio::piped()).spawn().expect("there is a shell");
        let mut input = shell.stdin.take().expect("piped");
        input.write_all(text.as_bytes()).expect("it reads");
        drop(input);
        assert!(shell.wait().expect("it ends").success(), "{text}");
        assert!(
            text.starts_with("#!/bin/sh\n# missed (data loss): it'swrong; $(reboot)\n"),
            "one comment line"
        );
        assert!(text.contains("need NEIGHBOUR_DEVICE") && !text.contains("need TARGET_DEVICE"));
    }

    #[test]
    fn the_script_asks_before_its_first_write_and_does_nothing_on_another_answer() {
        let text = of(everything());
        let question = text.find("Type its last 12 digits").expect("asks");
        let write = text.find("\nput \"$SOURCE_DEVICE\" 64 8").expect("writes");
        assert!(question < write);
        let (output, device) = run(vec![Op::Write { at: at(0, 1) }], "yes\n", "exit 9");
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stdout).contains("nothing was done"));
        assert_eq!(device, b"precious");
    }

    #[test]
    fn all_that_is_missing_is_said_at_once() {
        let script =
            of(vec![Op::On { volume: Role::Neighbour, op: Box::new(Op::Write { at: at(0, 1) }) }]);
        let mut shell = Command::new("sh");
        for name in ["LBAUDIT_ENDPOINT", "LIGHTBITS_JWT", "SOURCE_UUID", "SOURCE_DEVICE"] {
            shell.env_remove(name);
        }
        let output = shell
            .args(["-c", &script])
            .env("SOURCE_UUID", "x")
            .env("NEIGHBOUR_DEVICE", "")
            .stdin(Stdio::null())
            .output()
            .expect("there is a shell");
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr);
        let named: Vec<&str> =
            said.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
        let missing = [
            "LBAUDIT_ENDPOINT",
            "LIGHTBITS_JWT",
            "SOURCE_DEVICE",
            "NEIGHBOUR_UUID",
            "NEIGHBOUR_DEVICE",
        ];
        assert_eq!(named, missing, "{said}");
    }

    #[test]
    fn a_word_for_the_shell_is_one_word_there_whatever_it_holds() {
        for plain in ["lbaudit-runs/latest/finding-1/repro.sh", "--region=1GiB", "https://[::1]"] {
            let quoted = plain.contains('[');
            assert_eq!(shell_word(plain) == plain, !quoted, "{plain}");
        }
        for text in ["", "b h", "x\";touch y;#$(id)`id`", "it's", "~", "*", "a\\b", "ä", "-n"] {
            let line = format!("printf '%s|' {}", shell_word(text));
            let output = Command::new("sh").args(["-c", &line]).output().expect("a shell");
            assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{text}|"), "{line}");
        }
        assert_eq!(shell_word("a\u{1b}[31m\nb"), "'a\\u{1b}[31m\\nb'");
    }

    /// Runs a script with these answers typed, and this script in place of curl. Answers what came
    /// of it and what its device holds then.
    fn run(ops: Vec<Op>, typed: &str, curl: &str) -> (Output, Vec<u8>) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path
        };
        let (device, script) = (file("device", "precious"), file("script", &of(ops)));
        for (name, text) in [("curl", format!("cat >/dev/null\n{curl}")), ("dd", String::new())] {
            let stub = file(name, &format!("#!/bin/sh\n{text}\n"));
            std::fs::set_permissions(&stub, Permissions::from_mode(0o700)).expect("its owner's");
        }
        let others = std::env::var("PATH").expect("a path");
        let mut shell = Command::new("sh")
            .arg(&script)
            .env("PATH", format!("{}:{others}", folder.path().display()))
            .env("LBAUDIT_ENDPOINT", "https://127.0.0.1:1")
            .env("LIGHTBITS_JWT", "x")
            .env("SOURCE_UUID", "29051d6a-e968-4dc7-aa9a-bd382af936d1")
            .env("SOURCE_DEVICE", &device)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        shell.stdin.take().expect("piped").write_all(typed.as_bytes()).expect("it reads");
        let output = shell.wait_with_output().expect("it ends");
        (output, std::fs::read(&device).expect("still there"))
    }

    #[test]
    fn the_script_says_by_its_status_whether_it_happened_again() {
        let asks = || {
            let (snap, from) = (Label(0), Lba::new(0));
            vec![
                Op::Write { at: at(64, 8) },
                Op::Take { label: snap, wait: true },
                Op::Diff { snap, base: None, from, between_pages: None },
            ]
        };
        let status = |ranges: &str| {
            let snapshot = r#"{"UUID":"11111111-2222-3333-4444-555555555555","state":"Available"}"#;
            let page = format!(r#"{{"ranges":[{ranges}],"nextOffsetLBA":"0"}}"#);
            let curl = format!(
                "case $* in *diff*) echo '{page}' ;; *DELETE*) ;; *http_code*) printf 404; echo 'curl: (22)' >&2; exit 22 ;; *) echo '{snapshot}' ;; esac"
            );
            let (output, _) = run(asks(), "bd382af936d1\n", &curl);
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(told, "", "its own polling is no news");
            (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let (failed, text) = run(asks(), "bd382af936d1\n", "exit 22");
        assert_eq!(failed.status.code(), Some(3), "an array that fails is not wrong");
        assert_eq!(text, b"precious");
        // LBA 66 and 67 are bits 2 and 3 of their chunk; what follows are the bytes in base64.
        let chunk =
            |bits: &str| format!(r#"{{"lbaStart":"64","lbaEnd":"127","dataBitMap":"{bits}"}}"#);
        let before = r#"{"lbaStart":0,"dataBitMap":"//////////8="},"#;
        for (ranges, wanted) in [
            (chunk("DAAAAAAAAAA="), 0),
            (chunk("BAAAAAAAAAA="), 1),
            (chunk("+/////////8="), 1),
            (format!("{before}{}", chunk("DAAAAAAAAAA=")), 0),
            (before.trim_end_matches(',').to_owned(), 1),
            (String::new(), 1),
            (chunk("0x04"), 3),
        ] {
            let (code, text) = status(&ranges);
            assert_eq!(code, Some(wanted), "{ranges}: {text}");
        }
    }

    #[test]
    fn only_what_any_array_must_answer_is_judged() {
        let (take, write) =
            (|n| Op::Take { label: Label(n), wait: true }, Op::Write { at: at(66, 2) });
        let diff = |snap, base: Option<u32>| {
            let (snap, base) = (Label(snap), base.map(Label));
            Op::Diff { snap, base, from: Lba::new(0), between_pages: None }
        };
        let missed = Violation::new(Kind::Missed, "x").at(LbaSet::from(at(66, 2)));
        let leaked = Violation::new(Kind::Leaked, "x").at(LbaSet::from(at(200, 1)));
        let judged = |ops: &[Op], violation: &Violation| {
            let shape =
                Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(4096), fresh: true };
            let header = Header::new([(Role::Source, shape)].into(), Policy::Exact, "");
            let found = looked_for(&Scenario::new(header, ops.to_vec()), violation);
            found.into_iter().map(|(wanted, lba)| format!("{wanted} {lba}")).collect::<Vec<_>>()
        };
        let pair = |violation: &Violation, base: Option<u32>| {
            violation.clone().about(Label(1), base.map(Label))
        };
        let changed = [take(0), write.clone(), take(1), diff(1, Some(0))];
        assert_eq!(judged(&changed, &pair(&missed, Some(0))), ["yes 66", "yes 67"]);
        assert_eq!(judged(&changed, &pair(&leaked, Some(0))), ["no 200"]);
        assert_eq!(judged(&changed, &pair(&missed, None)), [""; 0], "another question");
        assert_eq!(judged(&changed, &pair(&missed, Some(0)).of_older_data()), [""; 0]);
        // What a used volume held before may well be reported since creation.
        let full = [take(0), take(1), diff(1, None)];
        assert_eq!(judged(&full, &pair(&leaked, None)), [""; 0]);
        let flying = Op::Concurrent(vec![take(1), write.clone()]);
        assert_eq!(judged(&[take(0), flying, diff(1, Some(0))], &pair(&missed, Some(0))), [""; 0]);
        let chain = [take(0), write, take(1), Op::SyncChain { to: Label(1) }];
        assert_eq!(judged(&chain, &pair(&missed, Some(0))), [""; 0]);
    }

    #[test]
    fn a_discard_needs_more_than_dd_and_says_so() {
        assert!(of(vec![Op::Discard { at: at(1, 2) }]).contains("needs blkdiscard"));
        let plain = of(vec![Op::Write { at: at(1, 2) }]);
        assert!(!plain.contains("blkdiscard"));
    }
}
