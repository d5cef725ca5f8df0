//! A scenario as a shell script for people who do not have this tool: curl and dd against a real
//! endpoint, everything that names it from environment variables, a question before it writes.
//!
//! The blocks it writes are random bytes: by hand it is the *answers* that are compared, not the
//! contents. What no interface of an array offers (restart, clone) it asks its reader to do.
//! Not covered: copying a diff; `lbaudit sync` does that.

use crate::block::{Extent, Role};
use crate::scenario::{Label, Op, Scenario};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// The script for `scenario`; `sentence` says what it shows.
pub fn script(scenario: &Scenario, sentence: &str) -> String {
    let mut text = String::from("#!/bin/sh\n");
    let words: String = sentence.chars().filter(|c| !c.is_control()).collect();
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
            let _ = writeln!(text, ": \"${{{name}_UUID:?UUID of the {role} volume}}\"");
            let _ = writeln!(text, ": \"${{{name}_DEVICE:?its block device}}\"");
        }
    }
    if needs.blkdiscard {
        text.push_str("# dd cannot discard.\n");
        text.push_str("command -v blkdiscard >/dev/null || { echo 'this one needs blkdiscard (util-linux) as well' >&2; exit 2; }\n");
    }
    text.push_str(FUNCTIONS);
    text.push_str(&body);
    let _ = writeln!(text, "say {}", quoted(&format!("What was found: {words}")));
    text
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
: "${LBAUDIT_ENDPOINT:?https://HOST of the array}"
: "${LIGHTBITS_JWT:?a token}"
: "${SOURCE_UUID:?UUID of the source volume}"
: "${SOURCE_DEVICE:?its block device}"
PROJECT=${PROJECT:-default}
# For example CURL_OPTIONS='--cacert FILE', or '--insecure'.
CURL_OPTIONS=${CURL_OPTIONS:-}
"#;

const FUNCTIONS: &str = r#"
say() { printf '%s\n' "$*"; }
manual() { say "BY HAND: $*"; printf 'Enter when done '; read -r _; }
# api METHOD PATH [curl arguments]; the token never stands on a command line.
api() {
  method=$1 path=$2; shift 2
  printf 'header = "Authorization: Bearer %s"\n' "$LIGHTBITS_JWT" |
    curl --silent --show-error --config - $CURL_OPTIONS --request "$method" \
      --header 'Content-Type: application/json' "$@" \
      "$LBAUDIT_ENDPOINT/api/v2/projects/$PROJECT/$path"
}
# field NAME: the value of a field of the JSON on standard input.
field() { tr -d '\n' | sed -n 's/.*"'"$1"'" *: *"\{0,1\}\([^",}]*\).*/\1/p'; }
taken=
take() { # LABEL VOLUME [nowait]
  answer=$(api POST snapshots --data '{"name":"by-hand-'"$$-$1"'","sourceVolumeUUID":"'"$2"'","projectName":"'"$PROJECT"'"}')
  uuid=$(printf '%s' "$answer" | field UUID)
  [ -n "$uuid" ] || { say "no snapshot: $answer"; exit 3; }
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
  until [ "$(api GET "snapshots/$1" --output /dev/null --write-out '%{http_code}')" = 404 ]; do
    n=$((n + 1)); [ $n -lt 180 ] || { say "snapshot $1 is not gone after 180 s"; return 0; }
    sleep 1
  done
}
delete() { api DELETE "snapshots/$1" >/dev/null; [ "${2:-}" = nowait ] || gone "$1"; }
settle() { for uuid in $taken; do
  case $(api GET "snapshots/$uuid" | field state) in
    Creating) available "$uuid" ;; Deleting) gone "$uuid" ;;
  esac
done; }
between() { :; }
# diff SNAPSHOT BASE FROM PAGES: prints each page; runs `between` after that many of them.
diff() {
  from=$3 page=0
  while :; do
    answer=$(api GET "snapshots/diff/$1?offsetLBA=$from${2:+&baseSnapshotUUID=$2}")
    say "     $answer"
    page=$((page + 1))
    [ "$page" != "$4" ] || between
    from=$(printf '%s' "$answer" | field nextOffsetLBA)
    [ "${from:-0}" != 0 ] || return 0
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
tidy() { for uuid in $taken; do api DELETE "snapshots/$uuid" >/dev/null 2>&1 || :; done; }

say "This overwrites blocks of volume $SOURCE_UUID through $SOURCE_DEVICE."
printf 'Type its last 12 digits to go on: '
read -r answer
[ "$answer" = "${SOURCE_UUID##*-}" ] || { say 'nothing was done'; exit 2; }
trap tidy EXIT

"#;

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
                "api PUT \"volumes/${}_UUID/rollback\" --data '{{\"srcSnapshotUUID\":\"'{}'\"}}'",
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
    use crate::block::{BlockSize, Geometry, Lba, LbaCount, Policy};
    use crate::scenario::{Check, Header, SyncSource};
    use std::io::Write as _;
    use std::process::{Command, Stdio};

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
        script(&Scenario::new(header, ops), "it's\nwrong; $(reboot)")
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
        assert!(text.starts_with("#!/bin/sh\n# it'swrong; $(reboot)\n"), "one comment line");
        assert!(text.contains("NEIGHBOUR_DEVICE:?") && !text.contains("${TARGET_DEVICE:?"));
    }

    #[test]
    fn the_script_asks_before_its_first_write_and_does_nothing_on_another_answer() {
        let text = of(everything());
        let question = text.find("Type its last 12 digits").expect("asks");
        let write = text.find("\nput \"$SOURCE_DEVICE\" 64 8").expect("writes");
        assert!(question < write);
        let folder = tempfile::tempdir().expect("a folder");
        let device = folder.path().join("device");
        std::fs::write(&device, b"precious").expect("a file");
        let script = folder.path().join("repro.sh");
        std::fs::write(&script, of(vec![Op::Write { at: at(0, 1) }])).expect("a file");
        let mut shell = Command::new("sh")
            .arg(&script)
            .env("LBAUDIT_ENDPOINT", "https://127.0.0.1:1")
            .env("LIGHTBITS_JWT", "x")
            .env("SOURCE_UUID", "29051d6a-e968-4dc7-aa9a-bd382af936d1")
            .env("SOURCE_DEVICE", &device)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        shell.stdin.take().expect("piped").write_all(b"yes\n").expect("it reads");
        let output = shell.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stdout).contains("nothing was done"));
        assert_eq!(std::fs::read(&device).expect("still there"), b"precious");
    }

    #[test]
    fn a_discard_needs_more_than_dd_and_says_so() {
        assert!(of(vec![Op::Discard { at: at(1, 2) }]).contains("needs blkdiscard"));
        let plain = of(vec![Op::Write { at: at(1, 2) }]);
        assert!(!plain.contains("blkdiscard"));
    }
}
