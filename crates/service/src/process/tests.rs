// SPDX-License-Identifier: AGPL-3.0-only
//! Parts that end as they like, and what the process makes of it.

use super::*;

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_part_that_ends_takes_the_others_with_it_and_says_how() {
    let process = Process::new();
    let patient = part(LONG, |_, shutdown| async move {
        shutdown.cancelled().await;
        Exit::Ok
    });
    let refused = part(LONG, |_, _| async { Exit::Refused });
    assert_eq!(process.live(vec![patient, refused]).await, Exit::Refused);
    assert_eq!(process.finish(Exit::Refused).await, Exit::Refused);
}

#[tokio::test(start_paused = true)]
async fn the_end_that_is_asked_for_is_a_good_one() {
    let process = Process::new();
    let obedient = part(LONG, |_, shutdown| async move {
        shutdown.cancelled().await;
        Exit::Ok
    });
    process.shutdown.cancel();
    assert_eq!(process.live(vec![obedient]).await, Exit::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_drain_longer_than_the_longest_deadline_is_given_up() {
    let process = Process::new();
    let begun = tokio::time::Instant::now();
    let quick = part(Duration::from_secs(1), |_, _| async { Exit::Ok });
    let stubborn = part(Duration::from_secs(20), |_, _| std::future::pending());
    assert_eq!(process.live(vec![quick, stubborn]).await, Exit::DrainDeadline);
    assert_eq!(begun.elapsed(), Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_the_process_with_an_error() {
    let process = Process::new();
    let careless = part(LONG, |service, shutdown| async move {
        service.tasks.spawn("careless", async { panic!("a defect") });
        shutdown.cancelled().await;
        Exit::Ok
    });
    let exit = process.live(vec![careless]).await;
    assert_eq!(process.finish(exit).await, Exit::Error);
}

#[tokio::test]
async fn addresses_are_written_for_programs() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("addresses.json");
    let announcement = Announcement {
        file: Some(file.clone()),
        more: vec![("api", "http://there".into())],
        ..Announcement::default()
    };
    let parts = [part(LONG, |_, _| async { Exit::Ok })];
    announcement.say(&parts, Some(([127, 0, 0, 1], 9100).into())).expect("writes");
    let said: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).expect("there")).expect("JSON");
    assert_eq!((&said["tested"], &said["api"]), (&"tcp://here".into(), &"http://there".into()));
    assert_eq!((&said["admin"], &said["pid"]), (&"http://127.0.0.1:9100".into(), &std::process::id().into()));
    let nowhere = Announcement { file: Some(folder.path().join("no/file")), ..Announcement::default() };
    let error = nowhere.say(&parts, None).expect_err("no such folder");
    assert!(error.to_string().contains("cannot write the addresses to"), "{error}");
}

fn part<L: Future<Output = Exit> + Send + 'static>(
    drain: Duration,
    life: impl FnOnce(Service, CancellationToken) -> L + Send + 'static,
) -> Part {
    Part {
        name: "tested",
        url: "tcp://here".into(),
        greeting: "here".into(),
        pages: &[],
        drain,
        drain_setting: "tested.drain_timeout",
        life: Box::new(move |service, shutdown| Box::pin(life(service, shutdown))),
    }
}
