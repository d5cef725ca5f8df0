//! The files of `deploy/` say what this program understands.

use super::*;
use serde_json::Value;
use settings::flags::flags_of;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn deploy(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Parses a command line with the program's own parser alone, without settings.
#[track_caller]
fn parses(words: &[String]) {
    if let Err(error) = Cli::try_parse_from(words) {
        panic!("{words:?}: {error}");
    }
}

/// The values of a key of a unit, continued lines joined.
fn of_unit(unit: &str, key: &str) -> Vec<String> {
    let unit = unit.replace("\\\n", " ");
    let lines = unit.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value.to_owned())
        .collect()
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_unit_starts_what_this_program_understands() {
    let unit = deploy("systemd/lbaudit-soak.service");
    let lines = of_unit(&unit, "ExecStart");
    assert_eq!(lines.len(), 1);
    let started = words(&lines[0]);
    assert_eq!(started[0], "/usr/bin/lbaudit");
    assert!(started.contains(&"--duration".to_owned()), "{started:?}");
    parses(&started);
    // What the comment tells to write instead.
    let above = unit.lines().take_while(|line| !line.starts_with("[Unit]"));
    let comment: String = above.filter_map(|line| line.strip_prefix('#')).collect();
    let edited = comment.split("ExecStart=/").nth(1).expect("an example").replace('\\', " ");
    parses(&words(&edited));
}

#[test]
fn the_unit_keeps_block_devices_and_its_findings() {
    let unit = deploy("systemd/lbaudit-soak.service");
    let is = |key: &str, value: &str| {
        assert_eq!(of_unit(&unit, key), [value], "{key}");
    };
    is("PrivateDevices", "no");
    is("DeviceAllow", "block-blkext rw");
    is("TimeoutStopSec", "30");
    is("Restart", "no");
    // Exit code 1, a violation, must not count as success.
    is("SuccessExitStatus", "143");
    let timer = deploy("systemd/lbaudit-soak.timer");
    for key in ["OnCalendar", "RandomizedDelaySec"] {
        assert_eq!(of_unit(&timer, key).len(), 1, "{key}");
    }
    assert_eq!(of_unit(&timer, "Persistent"), ["true"]);
}

#[test]
fn the_example_of_settings_holds_only_what_is_known() {
    let text = deploy("lbaudit.toml");
    // As it is shipped, and with every example switched on.
    let keys_on: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let line = ["lbaudit", "soak", "--config-profile", "lab", "--config"];
    for (text, least) in [(text, 0), (keys_on, 5)] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lbaudit.toml");
        std::fs::write(&path, text).expect("written");
        let words = line.iter().map(OsString::from).chain([path.into()]).collect();
        let places = Places { files: Vec::new(), owners: Vec::new() };
        let around = Around { variables: Vec::new(), places };
        let completed = settings::complete(words, &Cli::command(), &around).expect("completes");
        assert_eq!(completed.warnings, Vec::<String>::new());
        assert!(completed.words.len() >= 6 + least, "{:?}", completed.words);
        assert!(Cli::try_parse_from(&completed.words).is_ok(), "{:?}", completed.words);
    }
}

#[test]
fn the_scripts_of_slurm_give_flags_that_there_are() {
    let script = deploy("slurm/soak.sbatch");
    let root = Cli::command();
    let soak = root.find_subcommand("soak").expect("a command");
    let known: BTreeSet<String> = flags_of(soak)
        .into_iter()
        .map(|flag| flag.name)
        .chain(["config-profile".to_owned()])
        .collect();
    let code = script.lines().filter(|line| !line.starts_with('#'));
    let given: Vec<&str> = code
        .flat_map(|line| line.split([' ', '(']))
        .filter_map(|word| word.strip_prefix("--"))
        .collect();
    assert!(given.len() >= 6, "{given:?}");
    for flag in given {
        assert!(known.contains(flag), "--{flag}");
    }
    // One seed for all tasks, and a folder for each.
    assert!(script.contains("--seed \"${LBAUDIT_SEED:-$SLURM_ARRAY_JOB_ID}\""));
    assert!(script.contains("$SLURM_ARRAY_TASK_ID\"\n"));
    assert!(script.contains("#SBATCH --array=0-3") && script.contains("--signal=B:TERM@60"));
}

#[test]
fn the_jobs_of_kubernetes_start_what_this_program_understands() {
    for (file, least) in [("soak-job.yaml", 6), ("merge-job.yaml", 2)] {
        let job = job_of(file);
        let container = &job["spec"]["template"]["spec"]["containers"][0];
        let line: Vec<String> = ["command", "args"]
            .iter()
            .flat_map(|key| container[key].as_array().expect("words").clone())
            .map(|word| word.as_str().expect("text").replace("$(JOB_COMPLETION_INDEX)", "2"))
            .collect();
        assert!(line.len() >= least + 2, "{line:?}");
        parses(&line);
    }
}

#[test]
fn the_job_of_kubernetes_retries_only_what_could_not_be_tested() {
    let spec = &job_of("soak-job.yaml")["spec"];
    assert_eq!(spec["completionMode"], "Indexed");
    assert_eq!(spec["completions"], spec["parallelism"]);
    assert!(spec["backoffLimitPerIndex"].as_u64().is_some_and(|limit| limit > 0));
    assert!(spec.get("backoffLimit").is_none(), "the two do not go together");
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["restartPolicy"], "Never", "a failure policy needs it");
    let container = &pod["containers"][0];
    assert_eq!(container["name"], "lbaudit");
    let shards = container["env"]
        .as_array()
        .and_then(|env| env.iter().find(|row| row["name"] == "LBAUDIT_SHARDS"))
        .expect("a number of shards");
    assert_eq!(shards["value"].as_str(), Some(&*spec["completions"].to_string()));

    let rules = spec["podFailurePolicy"]["rules"].as_array().expect("rules");
    assert_eq!(rules[0]["action"], "Ignore");
    assert_eq!(rules[0]["onPodConditions"][0]["type"], "DisruptionTarget");
    let action_of = |code: u8| {
        let rule = rules.iter().find(|rule| {
            let codes = rule["onExitCodes"]["values"].as_array();
            codes.is_some_and(|codes| codes.contains(&Value::from(code)))
        });
        rule.and_then(|rule| rule["action"].as_str()).unwrap_or("Count")
    };
    for (exit, action) in [
        (Exit::Violation, "FailIndex"),
        (Exit::Bug, "FailIndex"),
        (Exit::Usage, "FailJob"),
        (Exit::CouldNotTest, "Count"),
        (Exit::Terminated, "Count"),
    ] {
        assert_eq!(action_of(exit.code()), action, "{exit:?}");
    }
    for rule in &rules[1..] {
        assert_eq!(rule["onExitCodes"]["containerName"], "lbaudit");
        assert_eq!(rule["onExitCodes"]["operator"], "In");
    }
}

#[test]
fn the_pods_may_do_little_and_reach_their_settings_and_their_token() {
    for file in ["soak-job.yaml", "merge-job.yaml"] {
        let pod = &job_of(file)["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{file}");
        assert_eq!(pod["automountServiceAccountToken"], false, "{file}");
        assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false, "{file}");
        assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL", "{file}");
        assert!(container["resources"]["limits"]["memory"].is_string(), "{file}");
        let names = |rows: &Value| -> BTreeSet<String> {
            let rows = rows.as_array().expect("rows").iter();
            rows.map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
        };
        assert_eq!(names(&container["volumeMounts"]), names(&pod["volumes"]), "{file}");
    }
    let soak = job_of("soak-job.yaml");
    let volumes = soak["spec"]["template"]["spec"]["volumes"].as_array().expect("rows").clone();
    assert!(volumes.iter().any(|volume| volume["secret"]["optional"] == true));
    let settings = documents("soak-job.yaml").into_iter().find(|it| it["kind"] == "ConfigMap");
    let settings = settings.expect("settings");
    let text = settings["data"]["lbaudit.toml"].as_str().expect("a file");
    let file = settings::file::parse(&PathBuf::from("x"), text).expect("parses");
    assert_eq!(file.profiles.len() as u64, soak["spec"]["completions"].as_u64().expect("a number"));
}

fn documents(file: &str) -> Vec<Value> {
    let text = deploy(&format!("kubernetes/{file}"));
    serde_saphyr::from_multiple(&text).expect("YAML")
}

fn job_of(file: &str) -> Value {
    let job = documents(file).into_iter().find(|it| it["kind"] == "Job");
    job.expect("a job")
}

#[test]
fn every_object_of_kubernetes_is_as_its_schema_wants_it() {
    let schema = Schema::read();
    let mut kinds = Vec::new();
    for file in ["soak-job.yaml", "merge-job.yaml"] {
        for object in documents(file) {
            kinds.push(object["kind"].as_str().expect("a kind").to_owned());
            assert_eq!(schema.faults(&object), Vec::<String>::new(), "{file}");
        }
    }
    assert_eq!(kinds, ["ConfigMap", "PersistentVolumeClaim", "Job", "Job"]);
}

#[test]
fn the_schema_refuses_a_misspelt_field_a_wrong_type_and_a_missing_one() {
    let schema = Schema::read();
    let spoilt = |spoil: fn(&mut Value)| {
        let mut job = job_of("soak-job.yaml");
        spoil(&mut job);
        schema.faults(&job).join("\n")
    };
    let misspelt = spoilt(|job| job["spec"]["backoffLimitPerIndx"] = 3.into());
    assert_eq!(misspelt, "Job.spec.backoffLimitPerIndx: no such field");
    let deep = spoilt(|job| job["spec"]["podFailurePolicy"]["rules"][1]["onExitCode"] = 2.into());
    assert_eq!(deep, "Job.spec.podFailurePolicy.rules[1].onExitCode: no such field");
    let typed = spoilt(|job| job["spec"]["completions"] = "4".into());
    assert!(typed.starts_with("Job.spec.completions: \"4\" is not "), "{typed}");
    let missing = spoilt(|job| {
        let rule = &mut job["spec"]["podFailurePolicy"]["rules"][0];
        rule.as_object_mut().expect("an object").remove("action");
    });
    assert_eq!(missing, "Job.spec.podFailurePolicy.rules[0]: action is missing");
    let quantity = spoilt(|job| {
        job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] =
            true.into();
    });
    assert!(quantity.ends_with("fits 0 of its forms"), "{quantity}");
}

/// The part of JSON Schema that the definitions use; any other keyword is a failure.
struct Schema(Value);

impl Schema {
    fn read() -> Schema {
        let text = include_str!("../../tests/data/kubernetes-1.37.json");
        Schema(serde_json::from_str(text).expect("JSON"))
    }
    /// What is wrong with an object, by where it is.
    fn faults(&self, object: &Value) -> Vec<String> {
        let kind = object["kind"].as_str().expect("a kind");
        let group = if kind == "Job" { "batch" } else { "core" };
        let schema = &self.0["$defs"][&format!("io.k8s.api.{group}.v1.{kind}")];
        let mut faults = Vec::new();
        self.hold(schema, object, kind, &mut faults);
        faults
    }
    fn hold(&self, schema: &Value, value: &Value, place: &str, faults: &mut Vec<String>) {
        for (keyword, rule) in schema.as_object().expect("a schema") {
            match keyword.as_str() {
                "$ref" => {
                    let name = rule.as_str().and_then(|it| it.strip_prefix("#/$defs/"));
                    let schema = &self.0["$defs"][name.expect("a definition")];
                    self.hold(schema, value, place, faults);
                }
                "type" => {
                    let any = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                    if !any.iter().any(|name| is_of(name.as_str().expect("a type"), value)) {
                        faults.push(format!("{place}: {value} is not {rule}"));
                    }
                }
                "enum" if !rule.as_array().expect("values").contains(value) => {
                    faults.push(format!("{place}: {value} is none of {rule}"));
                }
                "required" => {
                    let names = rule.as_array().expect("names").iter().filter_map(Value::as_str);
                    let missing = names.filter(|name| value.get(name).is_none());
                    faults.extend(missing.map(|name| format!("{place}: {name} is missing")));
                }
                "items" => {
                    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.hold(rule, item, &format!("{place}[{at}]"), faults);
                    }
                }
                "oneOf" => {
                    let fits = rule.as_array().expect("forms").iter().filter(|form| {
                        let mut inner = Vec::new();
                        self.hold(form, value, place, &mut inner);
                        inner.is_empty()
                    });
                    let fits = fits.count();
                    if fits != 1 {
                        faults.push(format!("{place}: {value} fits {fits} of its forms"));
                    }
                }
                "properties" => {
                    let fields = value.as_object().into_iter().flatten();
                    for (name, field) in fields {
                        match (rule.get(name), schema.get("additionalProperties")) {
                            (Some(rule), _) => {
                                self.hold(rule, field, &format!("{place}.{name}"), faults);
                            }
                            (None, Some(Value::Bool(false))) => {
                                faults.push(format!("{place}.{name}: no such field"));
                            }
                            (None, _) => {}
                        }
                    }
                }
                "additionalProperties" if rule.is_object() => {
                    for (name, field) in value.as_object().into_iter().flatten() {
                        self.hold(rule, field, &format!("{place}.{name}"), faults);
                    }
                }
                "additionalProperties" | "enum" | "format" => {}
                other => panic!("{place}: the keyword {other} is not understood"),
            }
        }
    }
}

fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "string" => value.is_string(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the type {other} is not understood"),
    }
}
