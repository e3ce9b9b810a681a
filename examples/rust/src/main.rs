//! Creates a call, reads it back, and watches it change:
//! `cargo run -- http://localhost:50051 +14155550148`

use std::{env, error::Error, pin::pin};

use futures_util::TryStreamExt;
use voicecall::{
    client::{Client, Settings, TokenSource, Watched},
    proto::{
        CreateVoiceCallRequest, GetVoiceCallRequest, HandleVoiceCallRequest, Snapshot, VoiceCall,
        VoiceCallDirection, VoiceCallFilter, VoiceCallStatus, WatchVoiceCallsRequest,
        watch_voice_calls_request::Start,
    },
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(endpoint), Some(from_number)) = (arguments.next(), arguments.next()) else {
        return Err("usage: voicecall-client-example ENDPOINT FROM_NUMBER".into());
    };
    // The client reads the token again when the file changes, and when the token expires.
    let token = env::var_os("VOICECALL_TOKEN_FILE").map(|path| TokenSource::File(path.into()));
    let client = Client::new(&Settings {
        token,
        ..Settings::new(endpoint)
    })?;

    // The client gives every write a request_id, so that its retries are safe.
    let created = client
        .create(CreateVoiceCallRequest {
            voice_call: Some(VoiceCall {
                direction: VoiceCallDirection::Inbound.into(),
                status: VoiceCallStatus::Missed.into(),
                from_number: Some(from_number),
                ..VoiceCall::default()
            }),
            ..CreateVoiceCallRequest::default()
        })
        .await?;
    println!("created {}", created.uid);

    let read = client
        .get(GetVoiceCallRequest {
            uid: created.uid.clone(),
            min_revision: created.revision,
        })
        .await?;
    println!("from {}", read.from_number.unwrap_or_default());

    let watch = client.watch(WatchVoiceCallsRequest {
        filter: Some(VoiceCallFilter {
            uids: vec![created.uid.clone()],
            ..VoiceCallFilter::default()
        }),
        start: Some(Start::Snapshot(Snapshot {})),
        ..WatchVoiceCallsRequest::default()
    });
    let mut watch = pin!(watch);
    while let Some(watched) = watch.try_next().await? {
        match watched {
            Watched::Complete { revision, .. } => {
                println!("snapshot at revision {revision}");
                client
                    .handle(HandleVoiceCallRequest {
                        uid: created.uid.clone(),
                        handled_by_staff_uid: "example".to_owned(),
                        ..HandleVoiceCallRequest::default()
                    })
                    .await?;
            }
            Watched::Event(event) => {
                let fields = event.change.and_then(|change| change.changed_fields);
                let fields = fields.unwrap_or_default();
                println!("changed: {}", fields.paths.join(", "));
                return Ok(());
            }
            Watched::Call(_) | Watched::Restarted | Watched::Position { .. } => {}
        }
    }
    Ok(())
}
