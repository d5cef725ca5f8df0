//! A run as metrics: for node_exporter's textfile collector (`metrics.prom`), and for a scraper
//! (`--metrics-listen`).
//!
//! Both forms differ in what a counter is called in its TYPE line and in the last line: the Prometheus
//! text format 0.0.4 <https://prometheus.io/docs/instrumenting/exposition_formats/>, and OpenMetrics 1.0
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>. Not covered: who serves them.

use crate::campaign::run_files::{Checkpoint, Sample, Started};
use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

/// How metrics are spelt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricsForm {
    /// Prometheus' text format 0.0.4, as the textfile collector reads it.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl MetricsForm {
    /// The media type of an answer in this form.
    pub const fn media_type(self) -> &'static str {
        match self {
            MetricsForm::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            MetricsForm::OpenMetrics => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8"
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Info,
}

struct Text {
    form: MetricsForm,
    text: String,
}

impl Text {
    fn head(&mut self, name: &str, kind: Kind, help: &str) {
        let (suffix, kind) = match (kind, self.form) {
            (Kind::Counter, MetricsForm::Prometheus) => ("_total", "counter"),
            (Kind::Counter, MetricsForm::OpenMetrics) => ("", "counter"),
            (Kind::Gauge, _) => ("", "gauge"),
            // The older format does not know infos.
            (Kind::Info, MetricsForm::Prometheus) => ("_info", "gauge"),
            (Kind::Info, MetricsForm::OpenMetrics) => ("", "info"),
        };
        // Writing to a String cannot fail.
        let _ = write!(
            self.text,
            "# HELP lbaudit_{name}{suffix} {help}\n# TYPE lbaudit_{name}{suffix} {kind}\n"
        );
    }
    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let mut braces = String::new();
        for (label, value) in labels {
            let comma = if braces.is_empty() { '{' } else { ',' };
            let _ = write!(braces, "{comma}{label}=\"{}\"", escaped(value));
        }
        if !braces.is_empty() {
            braces.push('}');
        }
        let _ = writeln!(self.text, "lbaudit_{name}{braces} {value}");
    }
    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, Kind::Counter, help);
        self.line(&format!("{name}_total"), &[], value);
    }
    fn gauge(&mut self, name: &str, help: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.head(name, Kind::Gauge, help);
            self.line(name, &[], value);
        }
    }
}

/// A label's value: backslash, quote and line feed are escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The metrics of a run at `now`: what it was asked, how far it is, and its last sample.
pub fn metrics(
    form: MetricsForm,
    started: &Started,
    kept: &Checkpoint,
    sample: &Sample,
    now: SystemTime,
) -> String {
    let mut text = Text { form, text: String::new() };
    let totals = &kept.so_far.totals;
    text.head("run", Kind::Info, "What runs.");
    let seed = started.seed.to_string();
    let labels = [
        ("run", started.run.as_str()),
        ("version", &started.version),
        ("seed", &seed),
        ("target", &started.target),
        ("profile", &started.profile),
        ("shard", started.shard.as_deref().unwrap_or("0/1")),
    ];
    text.line("run_info", &labels, 1);
    for (name, help, value) in [
        ("cases", "Cases that were run.", totals.cases),
        ("operations", "Operations that were run.", totals.ops),
        ("diffs", "Diffs that were judged.", totals.diffs),
        ("pages", "Pages of diffs and syncs.", totals.pages),
        ("snapshots_taken", "Snapshots that were taken.", totals.taken),
        ("snapshots_deleted", "Snapshots that were deleted.", totals.deleted),
        ("reported_lbas", "LBAs that judged diffs reported.", totals.reported_lbas),
        ("must_report_lbas", "LBAs that these diffs had to report.", totals.must_lbas),
        ("violations", "Cases with a violation.", totals.failures),
        ("unknown", "Cases that could not be judged.", totals.unknown),
    ] {
        text.counter(name, help, value);
    }
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for known in &kept.findings {
        *kinds.entry(known.signature.kind.name()).or_default() += 1;
    }
    text.head("findings", Kind::Gauge, "Different findings by kind.");
    for (kind, count) in &kinds {
        text.line("findings", &[("kind", kind)], count);
    }
    if kinds.is_empty() {
        text.line("findings", &[("kind", "none")], 0);
    }
    if let Some(calls) = sample.api_calls {
        text.counter("api_calls", "Calls of the array's API.", calls);
        text.counter("api_retries", "Calls repeated.", sample.api_retries.unwrap_or(0));
    }
    let seconds = |ms: Option<f64>| ms.map(|ms| ms / 1e3);
    text.gauge("api_p50_seconds", "Median of the last answers.", seconds(sample.api_p50_ms));
    text.gauge("api_p99_seconds", "99 of 100 took no longer.", seconds(sample.api_p99_ms));
    text.gauge("resident_memory_bytes", "Memory in use.", sample.rss_bytes);
    text.gauge("open_fds", "Open file descriptors.", sample.descriptors);
    text.gauge("threads", "Threads.", sample.threads);
    text.gauge("elapsed_seconds", "How long it has run.", Some(kept.seconds));
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    text.gauge("last_update_timestamp_seconds", "When this was written.", Some(now));
    // Alerts: ended and not 0, or not updated for long.
    text.gauge("exit_code", "How it ended; absent while it goes on.", kept.exit_code);
    if form == MetricsForm::OpenMetrics {
        text.text.push_str("# EOF\n");
    }
    text.text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::finding::Signature;
    use crate::campaign::run_files::{Known, Stream};
    use std::collections::BTreeSet;

    fn run() -> (Started, Checkpoint, Sample) {
        let started = serde_json::json!({"event": "run_started", "run": "abc", "arguments": [],
            "version": "0.1.0", "seed": 7, "generator": 1, "target": "a \"b\"\\c\nd",
            "profile": "all", "policy": null, "planted": [], "jobs": 2, "cases": 9,
            "seconds": null, "notes": [], "capabilities": null});
        let started = serde_json::from_value(started).expect("reads");
        let mut kept = Checkpoint::begin(Stream::new());
        (kept.so_far.totals.cases, kept.seconds) = (41, 1.5);
        let kind = crate::oracle::Kind::Missed;
        let signature = Signature { kind, ops: Vec::new() };
        kept.findings.push(Known { number: 1, case: 4, signature, operations: 4, cases: 2 });
        let sample = Sample {
            api_calls: Some(12),
            api_p99_ms: Some(250.0),
            rss_bytes: Some(4096),
            ..Sample::default()
        };
        (started, kept, sample)
    }

    fn text(form: MetricsForm) -> String {
        let (started, kept, sample) = run();
        metrics(form, &started, &kept, &sample, UNIX_EPOCH)
    }

    #[test]
    fn both_forms_say_the_same_in_their_own_way() {
        let (old, new) = (text(MetricsForm::Prometheus), text(MetricsForm::OpenMetrics));
        let values = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
        };
        assert_eq!(values(&old), values(&new));
        assert!(old.contains("# TYPE lbaudit_cases_total counter\nlbaudit_cases_total 41\n"));
        assert!(new.contains("# TYPE lbaudit_cases counter\nlbaudit_cases_total 41\n"));
        assert!(new.ends_with("# EOF\n") && !old.contains("EOF"));
        assert!(old.contains("lbaudit_findings{kind=\"missed\"} 1\n"));
        assert!(old.contains("lbaudit_api_p99_seconds 0.25\n") && !old.contains("api_p50"));
        assert!(old.contains("target=\"a \\\"b\\\"\\\\c\\nd\""), "{old}");
        assert!(!old.contains("exit_code"), "it goes on");
    }

    #[test]
    fn the_dashboard_asks_for_metrics_that_there_are() {
        let board: serde_json::Value =
            serde_json::from_str(include_str!("../../deploy/grafana/lbaudit.json")).expect("JSON");
        let known = text(MetricsForm::Prometheus)
            + "lbaudit_api_p50_seconds 1\nlbaudit_open_fds 1\nlbaudit_threads 1\nlbaudit_exit_code 0\n";
        let mut asked = BTreeSet::new();
        let panels = board["panels"].as_array().expect("panels");
        assert!(panels.len() >= 8);
        for panel in panels {
            let targets = panel["targets"].as_array().expect("targets");
            assert!(!targets.is_empty(), "{panel}");
            for target in targets {
                let words = target["expr"].as_str().expect("an expression");
                let words = words.split(|c: char| !c.is_alphanumeric() && c != '_');
                let names = words.filter(|word| word.starts_with("lbaudit_"));
                asked.extend(names.map(str::to_owned));
            }
        }
        for name in &asked {
            let is = |line: &str| {
                line.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(['{', ' ']))
            };
            assert!(known.lines().any(is), "{name}");
        }
        assert!(asked.len() >= 10, "{asked:?}");
    }
}
