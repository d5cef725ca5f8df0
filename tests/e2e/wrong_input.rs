//! Wrong input: one clear line, the exit code of the manual, and not one byte written.

use crate::support::{
    Attach, Home, Idle, Meddle, Proxy, Server, Target, When, fuse_works, left_out, loops_work,
    on_path, tail,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::process::Signal;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};

/// The smallest volume that the suite takes.
const SMALLEST: &str = "1776MiB";

/// SHA-256 over a whole device.
fn digest(device: &Path) -> Vec<u8> {
    let mut file = fs::File::open(device).unwrap();
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; 4 << 20];
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return context.finish().as_ref().to_vec(),
            len => context.update(&buffer[..len]),
        }
    }
}

/// The digests of source and target.
fn digests(server: &Server) -> [Vec<u8>; 2] {
    [0, 1].map(|index| digest(&server.device(index)))
}

/// Gives both volumes contents that are worth losing.
fn fill(server: &Server) {
    let empty = digests(server);
    for index in 0..2 {
        let mut file = fs::OpenOptions::new().write(true).open(server.device(index)).unwrap();
        let mib_there = file.seek(SeekFrom::End(0)).unwrap() >> 20;
        for mib in [0_u64, 500, 1000, 1700].into_iter().filter(|mib| *mib < mib_there) {
            let byte = u8::try_from(mib / 10 + 1).unwrap() + u8::try_from(index).unwrap();
            let at = mib << 20;
            std::os::unix::fs::FileExt::write_all_at(&file, &vec![byte; 1 << 20], at).unwrap();
        }
        file.sync_all().unwrap();
    }
    let full = digests(server);
    assert!(full[0] != full[1] && full[0] != empty[0], "the digest sees what was filled in");
}

/// One mistake: what is wrong, the command line, the token, the exit code, words of the one line.
struct Mistake {
    what: &'static str,
    args: Vec<String>,
    token: Option<String>,
    code: i32,
    says: Vec<String>,
}

/// Makes each mistake on this server and looks whether anything was written: after each by the
/// simulator's own record, after all of them by the digests of both devices.
fn each_is_refused_and_nothing_is_written(home: &Home, server: &Server, mistakes: &[Mistake]) {
    let api = server.api();
    let before = digests(server);
    let volumes = || [server.volume(0, "uuid"), server.volume(1, "uuid")];
    for Mistake { what, args, token, code, says } in mistakes {
        let idle = Idle::since_now(&api, volumes());
        let run = home.run(args, token.as_deref());
        assert_eq!(run.code, Some(*code), "{what}: {run}");
        assert_eq!(run.stdout, "", "{what}: {run}");
        let lines: Vec<&str> = run.stderr.lines().collect();
        assert!(matches!(lines[..], [line] if line.starts_with("lbaudit: ")), "{what}: {run}");
        for words in says {
            assert!(run.stderr.contains(words), "{what}: no `{words}`: {run}");
        }
        idle.assert_untouched(what);
        assert_eq!(api.snapshot_names(), [""; 0], "{what}");
        assert!(home.runs().is_empty(), "{what}: no run, no run folder");
    }
    assert_eq!(digests(server), before, "a refusal changed a device");
}

fn words(says: &[&str]) -> Vec<String> {
    says.iter().map(|&words| words.to_owned()).collect()
}

/// A mistake in the target's flags.
fn wrong_target(
    server: &Server,
    what: &'static str,
    change: impl FnOnce(&mut Target),
    code: i32,
    says: &[&str],
) -> Mistake {
    let mut target = server.target();
    change(&mut target);
    let args = target.args(&["suite"], &[]);
    Mistake { what, args, token: Some(server.token.clone()), code, says: words(says) }
}

/// The token with its end set into the past. Its signature is wrong now, but nobody may even ask.
fn expired(token: &str) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let claims = URL_SAFE_NO_PAD.decode(&parts[1]).unwrap();
    let mut claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    claims["exp"] = 1_600_000_000.into();
    parts[1] = URL_SAFE_NO_PAD.encode(claims.to_string());
    parts.join(".")
}

/// The token with its last digits changed.
fn forged(token: &str) -> String {
    let (rest, signature) = token.rsplit_once('.').unwrap();
    let turned: String = signature.chars().rev().collect();
    format!("{rest}.{turned}")
}

#[test]
fn wrong_devices_volumes_and_consent_are_refused_and_the_devices_keep_their_hashes() {
    if !fuse_works() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &["--size", SMALLEST, "--neighbour"]);
    fill(&server);
    let regular = home.path().join("regular");
    fs::write(&regular, vec![7; 1 << 20]).unwrap();
    let regular = regular.display().to_string();
    let (source, target) = (server.volume(0, "device"), server.volume(1, "device"));
    let (source_uuid, target_uuid) = (server.volume(0, "uuid"), server.volume(1, "uuid"));
    let neighbour = server.volume(2, "uuid");
    let wrong = |what, change: &dyn Fn(&mut Target), says: &[&str]| {
        wrong_target(&server, what, change, 2, says)
    };
    let nobody = "00000000-0000-4000-8000-000000000000";
    let mistakes = [
        wrong(
            "a device that is not there",
            &|target| target.source_device = Some("/dev/lbaudit-no-such".to_owned()),
            &["refused G1", "/dev/lbaudit-no-such", "No such file"],
        ),
        wrong(
            "a regular file",
            &|target| target.source_device = Some(regular.clone()),
            &["refused G1", "is a regular file"],
        ),
        wrong(
            "a character device",
            &|target| target.target_device = Some("/dev/null".to_owned()),
            &["refused G1", "is a character device"],
        ),
        wrong(
            "swapped devices",
            &|t| {
                (t.source_device, t.target_device) = (Some(target.clone()), Some(source.clone()));
            },
            &["refused G1", "its name does not carry the volume's UUID", &source_uuid],
        ),
        wrong(
            "the same device twice",
            &|t| t.target_device = t.source_device.clone(),
            &["refused G1", &target_uuid],
        ),
        wrong(
            "one volume twice",
            &|t| t.target_uuid = t.source_uuid.clone(),
            &["source and target are the same volume", &source_uuid],
        ),
        wrong(
            "a UUID that no volume has",
            &|t| t.source_uuid = Some(nobody.to_owned()),
            &["404", "check --source-uuid"],
        ),
        wrong(
            "the UUID of another volume",
            &|t| {
                t.source_uuid = Some(neighbour.clone());
                t.destroy.push(tail(&neighbour));
            },
            &["refused G1", &neighbour],
        ),
        wrong(
            "no consent",
            &|t| t.destroy.clear(),
            &["refused G15", "vol-src", "vol-dst", "--destroy"],
        ),
        wrong(
            "consent to one volume only",
            &|t| t.destroy.truncate(1),
            &["refused G15", "vol-dst", &tail(&target_uuid)],
        ),
        wrong(
            "consent to a third volume",
            &|t| t.destroy[1] = tail(&neighbour),
            &["refused G15", "vol-dst"],
        ),
    ];
    each_is_refused_and_nothing_is_written(&home, &server, &mistakes);
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn wrong_tokens_certificates_flags_and_names_have_their_exit_codes() {
    if !fuse_works() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &["--size", SMALLEST]);
    fill(&server);
    let pin = server.text("pin_sha256");
    let whole = server.target();
    let token = Some(server.token.clone());
    let with = |what, args, code, says: &[&str]| Mistake {
        what,
        args,
        token: token.clone(),
        code,
        says: words(says),
    };
    let with_token = |what, args: &[&str], token: Option<String>, code, says: &[&str]| {
        let args = whole.args(args, &["--test", "12"]);
        Mistake { what, args, token, code, says: words(says) }
    };
    let mut mistakes = vec![
        with_token("a forged token", &["suite"], Some(forged(&server.token)), 3, &["401"]),
        with_token("no token at all", &["suite"], None, 2, &["no token", "LIGHTBITS_JWT"]),
        with_token(
            "a token that is over",
            &["suite"],
            Some(expired(&server.token)),
            3,
            &["the token expired at", "nothing was sent"],
        ),
        with_token(
            "the same in the original's form",
            &[],
            Some(expired(&server.token)),
            1,
            &["the token expired at"],
        ),
        with(
            "an unknown test",
            whole.args(&["suite"], &["--test", "scatered_writes"]),
            2,
            &["`scatered_writes`", "did you mean `scattered_writes`"],
        ),
        with(
            "a glob for nothing",
            whole.args(&["suite"], &["--test", "zzz*"]),
            4,
            &["selects no test"],
        ),
        wrong_target(
            &server,
            "another certificate than pinned",
            |target| target.pins = vec!["00".repeat(32)],
            3,
            &[&format!("--pin-sha256 {pin}")],
        ),
        wrong_target(
            &server,
            "a certificate that nobody vouches for",
            |target| target.pins.clear(),
            3,
            &[&format!("--pin-sha256 {pin}")],
        ),
    ];
    type Leave = fn(&mut Target);
    let leaves: [(&'static str, Leave); 3] = [
        ("--endpoint", |target| target.endpoint = None),
        ("--source-uuid", |target| target.source_uuid = None),
        ("--target-uuid", |target| target.target_uuid = None),
    ];
    for (flag, leave) in leaves {
        mistakes.push(wrong_target(&server, flag, leave, 2, &[flag, "missing"]));
    }
    let only = ["suite", "--source-device", "/dev/null"].map(str::to_owned).to_vec();
    mistakes.push(with("only a device", only, 2, &["--endpoint", "missing"]));
    each_is_refused_and_nothing_is_written(&home, &server, &mistakes);
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn an_expired_token_is_not_even_sent() {
    if !fuse_works() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &[]);
    let proxy = Proxy::start(&server, Meddle::Nothing, When::Always);
    let mut target = server.target();
    target.endpoint = Some(proxy.endpoint.clone());
    target.pins = vec![proxy.pin.clone()];
    let args = target.args(&["suite"], &["--test", "12"]);
    fill(&server);
    let before = digests(&server);
    home.run(&args, Some(&expired(&server.token))).assert_code(3);
    assert_eq!(proxy.calls(), 0);
    assert_eq!(digests(&server), before);
    home.run(&args, Some(&server.token)).assert_code(0);
    assert!(proxy.calls() > 0, "the way was open");
    drop(proxy);
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn a_volume_that_is_too_small_is_refused() {
    if !fuse_works() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &["--size", "512MiB"]);
    let says = ["refused G10", "512 MiB", "larger volume"];
    let small = [wrong_target(&server, "too small", |_| {}, 2, &says)];
    fill(&server);
    each_is_refused_and_nothing_is_written(&home, &server, &small);
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

/// A mounted file system; dropping it unmounts.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::empty()).unwrap();
    }
}

#[test]
fn swapped_block_devices_and_one_given_twice_are_refused_by_name() {
    if !loops_work() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Loop, &["--size", SMALLEST]);
    fill(&server);
    let swap = |t: &mut Target| std::mem::swap(&mut t.source_device, &mut t.target_device);
    let says = ["refused G12", "source and target are swapped", "--target-device"];
    let twice = |t: &mut Target| t.target_device = t.source_device.clone();
    let mistakes = [
        wrong_target(&server, "swapped devices", swap, 2, &says),
        wrong_target(&server, "the same device twice", twice, 2, &["refused G13", "same device"]),
    ];
    each_is_refused_and_nothing_is_written(&home, &server, &mistakes);
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn a_mounted_device_is_refused_and_keeps_its_hash() {
    if !loops_work() {
        return;
    }
    if !on_path("mkfs.ext4") {
        return left_out("mkfs.ext4 is not there, so nothing can be mounted");
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Loop, &["--size", "64MiB"]);
    let source = server.volume(0, "device");
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-E", "lazy_itable_init=0,nodiscard", &source])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
    let point = home.path().join("mounted");
    fs::create_dir(&point).unwrap();
    // A new journal needs no replay: a read-only mount writes nothing.
    let read_only = rustix::mount::MountFlags::RDONLY;
    rustix::mount::mount(&source, &point, "ext4", read_only, None::<&std::ffi::CStr>).unwrap();
    let mounted = Mounted(&point);
    let says = ["refused G6", &source, "mounted", &point.display().to_string()];
    let mistakes = [wrong_target(&server, "a mounted device", |_| {}, 2, &says)];
    each_is_refused_and_nothing_is_written(&home, &server, &mistakes);
    drop(mounted);
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}
