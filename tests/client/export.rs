//! Exports by command, and what a person sees of them.

use std::io::Read;

use voicecall::proto::{VoiceCall, VoiceCallStatus};

use crate::{
    program::{run, run_in_terminal},
    support::{Server, secured::free_port},
    transfers::{EXAMPLE, Scratch, call, lines, run_with_input, summary},
};

#[tokio::test]
async fn an_export_has_what_the_flags_say_in_order() {
    let server = Server::start().await;
    let answered = |n| VoiceCall {
        status: VoiceCallStatus::AnsweredByStaff.into(),
        ..call(n)
    };
    let input = lines([call(5), answered(3), answered(4), call(1)].into_iter());
    run_with_input(&server.endpoint, &["import"], &input)
        .await
        .ok();
    let exported = run(
        &server.endpoint,
        &["export", "--status", "answered-by-staff"],
    )
    .await
    .ok();
    assert_eq!(exported, lines([answered(3), answered(4)].into_iter()));
}

#[tokio::test]
async fn a_file_is_the_whole_export_or_what_it_was() {
    let server = Server::start().await;
    let was = "what it was, and longer than what it will be".repeat(100);
    let file = Scratch::new(&was);
    let mut reader = std::fs::File::open(&file.0).expect("it is there");
    let away = format!("http://127.0.0.1:{}", free_port());
    let args = ["export", "--timeout=0.5", "--output", file.path()];
    assert_eq!(run(&away, &args).await.code, Some(5));
    assert_eq!(file.content(), was);
    run_with_input(&server.endpoint, &["import"], EXAMPLE)
        .await
        .ok();
    assert_eq!(run(&server.endpoint, &args).await.ok(), "");
    assert_eq!(file.content(), format!("{EXAMPLE}\n"));
    // A reader of the old file sees no mixture.
    let mut read = String::new();
    reader.read_to_string(&mut read).expect("it can be read");
    assert_eq!(read, was);
    // Nothing else is left, and what is no ordinary file is not replaced.
    let name = file
        .0
        .file_name()
        .and_then(|name| name.to_str())
        .expect("text");
    let dir = std::fs::read_dir(std::env::temp_dir()).expect("it can be read");
    let names = dir.map(|entry| entry.expect("it can be read").file_name());
    let ours = names.filter(|other| other.to_str().is_some_and(|other| other.contains(name)));
    assert_eq!(ours.count(), 1);
    run(&server.endpoint, &["export", "-o", "/dev/null"])
        .await
        .ok();
    let null = std::fs::metadata("/dev/null").expect("it is there");
    assert!(!null.is_file());
    let ran = run(&server.endpoint, &["export", "-o", "/nowhere/calls"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr
            .starts_with("voicecall: cannot write /nowhere/calls: ")
    );
}

#[tokio::test]
async fn a_person_sees_how_far_it_is() {
    let server = Server::start().await;
    let file = Scratch::new(&lines((0..5000).map(call)));
    let import = ["import", file.path()];
    let text = run_in_terminal(&server.endpoint, &import, 80, &[]).await;
    assert!(text.contains("calls  ") && text.contains(" left"), "{text}");
    assert!(text.ends_with(&summary(5000, 0, 0, 0, 0)), "{text}");
    let to = Scratch::new("");
    let export = ["export", "-o", to.path()];
    let text = run_in_terminal(&server.endpoint, &export, 80, &[]).await;
    assert!(text.contains("calls  "), "{text}");
    // On a terminal the calls themselves are to be seen.
    let text = run_in_terminal(&server.endpoint, &["export"], 80, &[]).await;
    assert_eq!(text, file.content());
}
