//! The original's command line against `sim serve` in another process.

use crate::support::{
    Attach, Home, Server, fuse_works, left_out, loops_work, on_path, one_that_cleans,
};
use rustix::process::Signal;
use serde_json::Value;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

#[test]
fn the_original_command_line_passes_twenty_of_twenty_and_again_on_the_used_volumes() {
    if !loops_work() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Loop, &[]);
    for volumes in ["fresh", "used"] {
        let run = server.suite(&home, &[]).finish();
        run.assert_code(0);
        assert!(
            run.verdict().starts_with("20/20 passed | ALL PASSED | total "),
            "{volumes}: {run}"
        );
        let passes = run.stdout.lines().filter(|line| {
            line.starts_with('[') && line.contains("/20] ") && line.contains(" PASS (")
        });
        assert_eq!(passes.count(), 20, "{volumes}: {run}");
        assert!(!run.stdout.contains('\u{1b}'), "no cursor codes where there is no terminal");
        assert_eq!(server.api().snapshot_names(), [""; 0], "{volumes}");
    }
    home.assert_no_file_holds(&server.token);
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn single_tests_run_by_name_and_number_and_verbose_adds_their_notes() {
    if !fuse_works() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &[]);
    let by_name = server.suite(&home, &["--test", "scattered_writes"]).finish();
    by_name.assert_code(0);
    assert!(by_name.verdict().starts_with("1/1 passed | ALL PASSED"), "{by_name}");
    assert!(by_name.stdout.contains("[1/1] scattered_writes "), "{by_name}");
    assert!(!by_name.stdout.contains("  · "), "no notes under what passes: {by_name}");
    let by_number = server.suite(&home, &["--test", "12", "--verbose"]).finish();
    by_number.assert_code(0);
    assert!(by_number.stdout.contains("[1/1] partial_chunk_bitmap "), "{by_number}");
    assert!(by_number.stdout.contains("  · wrote 1 MB at LBA 250912"), "{by_number}");
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn external_and_direct_checksums_both_pass() {
    if !fuse_works() {
        return;
    }
    if !on_path("dd") || !on_path("sha256sum") {
        return left_out("dd and sha256sum are not there");
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &[]);
    for how in ["external", "direct"] {
        let run = server.suite(&home, &["--test", "overwrite_same_region", "--checksum", how]);
        run.finish().assert_code(0);
    }
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn kept_snapshots_are_listed_and_deleted_by_clean_and_nothing_else_is() {
    if !fuse_works() {
        return;
    }
    let _alone = one_that_cleans();
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &[]);
    let api = server.api();
    api.take(&server.volume(0, "uuid"), "somebody-elses");
    let run = server.suite(&home, &["--test", "12", "--test", "1", "--keep-snapshots"]).finish();
    run.assert_code(0);
    let kept: Vec<String> =
        api.snapshot_names().into_iter().filter(|name| name != "somebody-elses").collect();
    assert!(kept.len() >= 4 && kept.iter().all(|name| name.contains("tsync")), "{kept:?}");

    let clean = |flags: &[&str]| {
        let flags = [flags, &["--output", "jsonl"]].concat();
        let run =
            home.run(&server.target().reading().args(&["clean"], &flags), Some(&server.token));
        run.assert_code(0);
        let lines = run.json();
        let of_snapshots = lines.iter().filter(|line| line["event"] == "snapshot");
        let mut found: Vec<(String, bool)> = of_snapshots
            .map(|line| (line["name"].as_str().unwrap().to_owned(), line["deleted"] == true))
            .collect();
        found.sort();
        found
    };
    let all = |deleted: bool| kept.iter().map(|name| (name.clone(), deleted)).collect::<Vec<_>>();
    assert_eq!(clean(&[]), all(false), "listed");
    assert_eq!(api.snapshot_names().len(), kept.len() + 1, "and left alone");
    assert_eq!(clean(&["--yes"]), all(true), "deleted");
    assert_eq!(api.snapshot_names(), ["somebody-elses"]);
    assert_eq!(clean(&[]), []);
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn another_project_is_reached_by_its_name_only() {
    if !fuse_works() {
        return;
    }
    let home = Home::new();
    let server = Server::start(&home, Attach::Fuse, &["--project", "other"]);
    server.suite(&home, &["--test", "12", "--project", "other"]).finish().assert_code(0);
    let wrong = server.suite(&home, &["--test", "12"]).finish();
    assert!(matches!(wrong.code, Some(1 | 2)), "{wrong}");
    assert_eq!(wrong.stdout, "", "{wrong}");
    assert_eq!(server.api().snapshot_names(), [""; 0]);
    server.stop(Signal::TERM);
    home.assert_nothing_left();
}

#[test]
fn half_a_chunk_is_the_literal_of_the_manual_on_the_wire_in_both_profiles() {
    if !fuse_works() {
        return;
    }
    for profile in ["A", "B"] {
        let home = Home::new();
        let server = Server::start(&home, Attach::Fuse, &["--profile", profile]);
        let (api, volume) = (server.api(), server.volume(0, "uuid"));
        let before = api.take(&volume, "before");
        let file = OpenOptions::new().write(true).open(server.device(0)).unwrap();
        file.write_all_at(&vec![0x5a; 256 * 4096], 250_912 * 4096).unwrap();
        file.sync_all().unwrap();
        let page = api.diff(&api.take(&volume, "after"), &before);
        let bitmaps: Vec<&Value> = page["lbaRanges"]
            .as_array()
            .unwrap()
            .iter()
            .map(|range| &range["dataBitMap"])
            .collect();
        let whole = "//////////8=";
        assert_eq!(bitmaps, ["AAAAAP////8=", whole, whole, whole, "/////wAAAAA="], "{page}");
        assert_eq!(page["lbaRanges"][0]["lbaStart"], "250880", "{page}");
        drop(file);
        server.stop(Signal::TERM);
        home.assert_nothing_left();
    }
}
