//! What CI systems are told besides the exit code: annotations and a summary on GitHub, paths of
//! pictures for Jenkins and GitLab. Only here are they asked for by the environment.
//!
//! Not covered: the texts (`crate::report::github`), JUnit (`crate::report`).

use super::ui::Ui;
use crate::campaign::run_record::RunRecord;
use crate::campaign::suite_run::SuiteRun;
use crate::report::github::{
    Trouble, annotations, campaign_summary, campaign_troubles, suite_summary, suite_troubles,
};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Whether GitHub runs this.
fn on_github() -> bool {
    std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true")
}

/// Tells GitHub of a random run, if it runs this. What cannot be read was said before.
pub fn tell_campaign(folder: &Path, ui: &mut Ui) {
    if on_github()
        && let Ok(run) = RunRecord::load(folder)
    {
        tell(&campaign_troubles(&run), &campaign_summary(&run), ui);
    }
}

/// Tells GitHub of a run of the suite, if it runs this.
pub fn tell_suite(folder: &Path, ui: &mut Ui) {
    if on_github()
        && let Ok(Some(run)) = SuiteRun::load(folder)
    {
        tell(&suite_troubles(&run), &suite_summary(&run), ui);
    }
}

/// Annotations are read from both streams; standard output may hold results for a program.
fn tell(troubles: &[Trouble], summary: &str, ui: &mut Ui) {
    annotations(troubles).iter().for_each(|line| ui.say(line));
    let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty()) else {
        return;
    };
    let path = PathBuf::from(path);
    let open = OpenOptions::new().append(true).create(true).open(&path);
    if let Err(error) = open.and_then(|mut file| file.write_all(summary.as_bytes())) {
        ui.say(&format!("cannot write the summary to {}: {error}", path.display()));
    }
}

/// How a picture's path is spelt in a JUnit file: absolute for Jenkins, from the project's folder on
/// for GitLab. <https://plugins.jenkins.io/junit-attachments/>,
/// <https://docs.gitlab.com/ci/testing/unit_test_reports/#view-junit-screenshots-on-gitlab>
pub fn attachment(path: &Path) -> String {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let project = std::env::var_os("GITLAB_CI").and_then(|_| std::env::var_os("CI_PROJECT_DIR"));
    let below = project.as_ref().and_then(|project| path.strip_prefix(project).ok());
    below.unwrap_or(&path).display().to_string()
}
