//! Tests of `serve`: the line it says, the files it keeps, and what is left afterwards.

use super::*;
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

/// A server on a thread, ready or failed.
struct Served {
    ready: Option<Ready>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), ServeError>>,
}

fn start(config: ServeConfig) -> Served {
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, receiver): (_, Receiver<Ready>) = channel();
    let flag = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        serve(&config, &mut |ready| sender.send(ready.clone()).expect("received"), &flag)
    });
    Served { ready: receiver.recv().ok(), stop, thread }
}

impl Served {
    fn end(self) -> Result<(), ServeError> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

fn small() -> ServeConfig {
    ServeConfig { size_bytes: 4 << 20, ..ServeConfig::default() }
}

#[test]
fn the_ready_line_has_exactly_the_documented_fields() {
    let ready = Ready {
        v: 1,
        endpoint: "https://127.0.0.1:40123".into(),
        pin_sha256: "ab".into(),
        ca_file: "/tmp/ca".into(),
        jwt_file: "/tmp/jwt".into(),
        project: "default".into(),
        volumes: vec![ReadyVolume {
            role: Role::Source,
            name: "vol-src".into(),
            uuid: VolumeUuid::from_u128(1),
            size_bytes: 2 << 30,
            device: Some("/dev/loop0".into()),
        }],
        notes: vec!["not in the line".into()],
    };
    let line = serde_json::to_string(&ready).expect("serialised");
    assert_eq!(
        line,
        concat!(
            r#"{"v":1,"endpoint":"https://127.0.0.1:40123","pin_sha256":"ab","ca_file":"/tmp/ca","#,
            r#""jwt_file":"/tmp/jwt","project":"default","volumes":[{"role":"source","#,
            r#""name":"vol-src","uuid":"00000000-0000-0000-0000-000000000001","#,
            r#""size_bytes":2147483648,"device":"/dev/loop0"}]}"#
        )
    );
    let back: Ready = serde_json::from_str(&line).expect("read again");
    assert_eq!(back, Ready { notes: Vec::new(), ..ready });
}

#[test]
fn everything_is_there_while_serving_and_nothing_afterwards() {
    let served = start(ServeConfig { neighbour: true, ..small() });
    let ready = served.ready.clone().expect("ready");
    let roles: Vec<Role> = ready.volumes.iter().map(|volume| volume.role).collect();
    assert_eq!(roles, [Role::Source, Role::Target, Role::Neighbour]);
    let names: Vec<&str> = ready.volumes.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["vol-src", "vol-dst", "vol-neighbour"]);
    for file in [&ready.ca_file, &ready.jwt_file] {
        let about = file.metadata().expect("written");
        assert_eq!(about.mode() & 0o777, 0o600);
        assert!(about.len() > 0);
        let folder = file.parent().expect("in a folder").metadata().expect("there");
        assert_eq!(folder.mode() & 0o777, 0o700);
    }
    let port = ready.endpoint.rsplit(':').next().expect("a port").parse().expect("a number");
    let connect = || std::net::TcpStream::connect(("127.0.0.1", port));
    assert!(connect().is_ok(), "it listens");
    // Where volumes cannot be attached, the notes say why.
    let devices: Vec<PathBuf> = ready.volumes.iter().filter_map(|v| v.device.clone()).collect();
    assert!(devices.len() == 3 || !ready.notes.is_empty());
    let mut backing = Vec::new();
    for (device, volume) in devices.iter().zip(&ready.volumes) {
        let sysfs = Path::new("/sys/block").join(device.file_name().expect("a name"));
        let file = match std::fs::read_to_string(sysfs.join("loop/backing_file")) {
            Ok(text) => PathBuf::from(text.trim_end()),
            Err(_) => device.clone(),
        };
        let name = format!("{}-{}", volume.role, volume.uuid);
        assert_eq!(file.file_name().expect("a name").to_string_lossy(), name);
        assert_eq!(file.metadata().expect("there").len(), 4 << 20);
        backing.push(file);
    }
    served.end().expect("all taken away");
    assert!(connect().is_err(), "nobody listens");
    assert!(!ready.jwt_file.parent().expect("in a folder").exists());
    assert!(backing.iter().all(|file| !file.parent().expect("in a folder").exists()));
}

#[test]
fn a_size_that_no_volume_can_have_is_refused_before_anything_is_made() {
    for size_bytes in [0, 4095, 4097] {
        let served = start(ServeConfig { size_bytes, ..small() });
        assert_eq!(served.ready, None);
        let error = served.end().expect_err("refused");
        assert!(matches!(error, ServeError::Size(size) if size == size_bytes), "{error}");
    }
}

#[test]
fn an_address_that_others_can_reach_is_refused() {
    let listen = SocketAddr::from(([0, 0, 0, 0], 0));
    let served = start(ServeConfig { listen, attach: AttachKind::None, ..small() });
    assert_eq!(served.ready, None);
    assert!(matches!(served.end(), Err(ServeError::Server(_))));
}

#[test]
fn a_preloaded_source_has_its_snapshot_from_the_start() {
    let preload = Some(Preload::Alternating);
    let (array, volumes) = set_up(&ServeConfig { preload, ..small() }).expect("set up");
    let snapshots = array.snapshots();
    let about: Vec<_> = snapshots.iter().map(|s| (s.name.as_str(), s.volume)).collect();
    assert_eq!(about, [("preload", volumes[0].uuid)]);
    std::thread::sleep(ServeConfig::default().delay * 2);
    let page = array.diff(snapshots[0].uuid, None, 0).expect("a diff");
    assert_eq!(page.ranges.len(), (4 << 20) / 4096 / 64);
    assert!(page.ranges.iter().all(|range| range.bits == 0x5555_5555_5555_5555));
}

#[test]
fn the_end_of_the_input_is_waited_for_and_its_contents_ignored() {
    let (reader, mut writer) = io::pipe().expect("a pipe");
    let waiting = std::thread::spawn(move || wait_for_end(reader));
    writer.write_all(b"anything").expect("written");
    std::thread::sleep(Duration::from_millis(50));
    assert!(!waiting.is_finished());
    drop(writer);
    waiting.join().expect("no panic");
}

#[test]
fn a_file_of_a_volume_fails_as_the_faults_say() {
    use std::os::unix::fs::FileExt as _;
    let faults = ["data:enospc@source:2+", "data:eio-read@target:1", "data:lost@neighbour:1"];
    let faults = faults.iter().map(|spec| spec.parse().expect("a fault")).collect();
    let attach = AttachKind::Fuse;
    let served = start(ServeConfig { neighbour: true, attach, faults, ..small() });
    let Some(ready) = served.ready.clone() else {
        let error = served.end().expect_err("it was not ready");
        assert!(matches!(error, ServeError::Attach(_)), "{error}");
        return crate::testing::left_out(&error);
    };
    let open = |at: usize| {
        let path = ready.volumes.get(at).and_then(|volume| volume.device.clone()).expect("a file");
        OpenOptions::new().read(true).write(true).open(path).expect("opens")
    };
    let code = |result: io::Result<()>| result.err().and_then(|error| error.raw_os_error());
    let (source, target, neighbour) = (open(0), open(1), open(2));
    let block = [7; 4096];
    assert_eq!(code(source.write_all_at(&block, 0)), None);
    for at in [0, 4096] {
        assert_eq!(code(source.write_all_at(&block, at)), Some(libc::ENOSPC));
    }
    let mut read = [1; 4096];
    assert_eq!(code(target.read_exact_at(&mut read, 0)), Some(libc::EIO));
    assert_eq!(code(target.read_exact_at(&mut read, 0)), None);
    assert_eq!(code(neighbour.write_all_at(&block, 0)), None, "it says that it wrote");
    neighbour.read_exact_at(&mut read, 0).expect("reads");
    assert_eq!(read, [0; 4096], "and did not");
    drop((source, target, neighbour));
    served.end().expect("all taken away");
}

#[test]
fn a_fault_of_a_volume_that_there_is_not_is_refused() {
    let faults = vec!["data:lost@neighbour:1".parse().expect("a fault")];
    let served = start(ServeConfig { faults, attach: AttachKind::None, ..small() });
    assert!(served.ready.is_none());
    let error = served.end().expect_err("there is no neighbour").to_string();
    assert!(error.contains("no neighbour volume"), "{error}");
}
