//! Every combination of flags that must be refused, and what the others come to.

use super::*;
use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    suite: SuiteArgs,
}

const SOURCE: &str = "29051d6a-e968-4dc7-aa9a-bd382af936d1";
const COPY: &str = "04aa8885-4b1e-4299-a5eb-59a3ef1cd3c3";
const ARRAY: [&str; 6] =
    ["--endpoint", "https://192.168.122.247", "--source-uuid", SOURCE, "--target-uuid", COPY];

fn config(flags: &[&str]) -> Result<SuiteConfig, ConfigError> {
    let line = std::iter::once(&"suite").chain(flags);
    let args = Line::try_parse_from(line).expect("flags have the right shape").suite;
    SuiteConfig::new(&args, Some("token-of-the-environment".to_owned()))
}

fn array(flags: &[&str]) -> Result<SuiteConfig, ConfigError> {
    config(&[&ARRAY, flags].concat())
}

#[test]
fn no_target_flag_means_the_embedded_simulator() {
    let config = config(&[]).expect("the default run");
    assert_eq!(config.target, Target::Embedded { page_limit: 128, in_process: false });
    assert_eq!((config.policy, config.external_checksum), (Policy::Exact, false));
    assert_eq!(config.max_full_sync, ByteLen::new(64 << 30));
    assert_eq!(config.available_timeout, Duration::from_secs(180));
    assert_eq!(config.min_mib_per_s, 10);
}

#[test]
fn the_originals_flags_mean_an_array() {
    let devices = ["--source-device", "/dev/nvme0n1", "--target-device", "/dev/nvme0n2"];
    let config = array(&devices).expect("the original's command line");
    let Target::Array { connection, volumes, consent } = config.target else {
        panic!("not an array")
    };
    assert_eq!(connection.project, "default");
    assert_eq!(volumes.source.to_string(), SOURCE);
    assert_eq!(volumes.target_device, Some(PathBuf::from("/dev/nvme0n2")));
    assert_eq!(consent, ConsentArgs::default());
    assert!(matches!(connection.token, Token::Environment(_)));
    assert_eq!((config.policy, config.external_checksum), (Policy::Chunk, true));
}

#[test]
fn any_target_flag_needs_all_of_them() {
    let every: [(&[&str], &str, &str); 6] = [
        (&["--project", "x"], "--project", "--endpoint and --source-uuid and --target-uuid"),
        (&["--insecure"], "--insecure", "--endpoint and --source-uuid and --target-uuid"),
        (&["--jwt", "t"], "--jwt", "--endpoint and --source-uuid and --target-uuid"),
        (
            &["--source-device", "/dev/x"],
            "--source-device",
            "--endpoint and --source-uuid and --target-uuid",
        ),
        (&["--source-uuid", SOURCE], "--source-uuid", "--endpoint and --target-uuid"),
        (&["--endpoint", "https://a"], "--endpoint", "--source-uuid and --target-uuid"),
    ];
    for (flags, given, missing) in every {
        let missing = missing.to_owned();
        assert_eq!(config(flags), Err(ConfigError::Incomplete { given, missing }), "{flags:?}");
    }
    assert!(config(&["--destroy", "bd382af936d1"]).is_err());
}

#[test]
fn contradictions_are_refused() {
    let zeros = "0".repeat(64);
    let cases: [(Result<SuiteConfig, ConfigError>, ConfigError); 5] = [
        (array(&["--in-process"]), ConfigError::EmbeddedOnly("--in-process")),
        (array(&["--jwt", "a", "--jwt-file", "b"]), ConfigError::Both("--jwt", "--jwt-file")),
        (
            array(&["--insecure", "--pin-sha256", &zeros]),
            ConfigError::Both("--insecure", "--pin-sha256"),
        ),
        (array(&["--insecure", "--ca-file", "x"]), ConfigError::Both("--insecure", "--ca-file")),
        (array(&["--backend", "qemu"]), ConfigError::Both("--backend qemu", "--endpoint")),
    ];
    for (result, error) in cases {
        assert_eq!(result, Err(error));
    }
}

#[test]
fn one_volume_twice_is_refused() {
    let flags = ["--endpoint", "https://a", "--source-uuid", SOURCE, "--target-uuid", SOURCE];
    assert!(matches!(config(&flags), Err(ConfigError::SameVolume(_))));
}

#[test]
fn a_token_is_needed_and_never_printed() {
    let args = |flags: &[&str]| {
        let line = [&["suite"], ARRAY.as_slice(), flags].concat();
        Line::try_parse_from(line).expect("flags have the right shape").suite
    };
    assert_eq!(SuiteConfig::new(&args(&[]), None), Err(ConfigError::NoToken));
    assert_eq!(SuiteConfig::new(&args(&[]), Some(" \n".to_owned())), Err(ConfigError::NoToken));
    let config = SuiteConfig::new(&args(&["--jwt", "canary"]), None).expect("a token is there");
    assert!(!format!("{config:?}").contains("canary"));
}

#[test]
fn sizes_and_times_read_in_the_units_of_the_manual() {
    let size = |text: &str| text.parse::<Size>().ok().map(|size| size.0.get());
    assert_eq!(size("64GiB"), Some(64 << 30));
    assert_eq!(size("4096"), Some(4096));
    for bad in ["", "GiB", "1GB", "-1", "1.5GiB", "99999999999TiB", "1 GiB"] {
        assert_eq!(size(bad), None, "{bad}");
    }
    let time = |text: &str| text.parse::<Seconds>().ok().map(|time| time.0.as_millis());
    assert_eq!(
        [time("180s"), time("3m"), time("500ms"), time("8h")],
        [Some(180_000), Some(180_000), Some(500), Some(28_800_000)]
    );
    for bad in ["", "180", "s", "1d", "-1s"] {
        assert_eq!(time(bad), None, "{bad}");
    }
}

#[test]
fn qemu_plays_its_own_array() {
    let config = config(&["--backend", "qemu", "--qsd", "/opt/qsd"]).expect("a qemu run");
    let qsd = Some(PathBuf::from("/opt/qsd"));
    assert_eq!(config.target, Target::Qemu { qsd, variant: QemuVariant::Honest });
    assert_eq!((config.policy, config.target.name()), (Policy::Exact, "qemu"));
}
