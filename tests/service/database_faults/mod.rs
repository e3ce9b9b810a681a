//! Faults of the database, each in its smallest form: responses stay true, nothing
//! is lost or applied twice, and the service works again as soon as the database
//! does.
//!
//! - `commits`: a commit that fails after its statement has answered
//! - `interruptions`: backends that are ended or cancelled while they commit
//! - `contention`: the same for a batch that took the commit lock before it read
//! - `settings`: settings of the role or the database of our sessions
//! - `isolation`: two replicas on a database with another default isolation level
//! - `durability`: what is acknowledged survives a crash
//! - `hosts`: connections and hosts that freeze, swallow or never answer
//! - `sessions`: sessions that died, were ended or cancelled, or cannot be made
//! - `column_types`: a column's type changes under running replicas
//! - `transaction_ids`: none are left
//!
//! Failover between two servers is in `failover`; `storm` has all faults at once.

mod column_types;
mod commits;
mod contention;
mod durability;
mod hosts;
mod interruptions;
mod isolation;
mod sessions;
mod settings;
mod transaction_ids;

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use tonic::{Code, Request, Status};
use voicecall::proto::{CreateVoiceCallRequest, VoiceCall};

use crate::support::{
    Client, Server, create, facts, inbound,
    reads::{assert_answered, every_read},
    writes::{Write, update_of},
};

/// Longer than any of the service's own time limits.
const PATIENCE: Duration = Duration::from_secs(25);

/// Sends a write, and waits for the response, which must come some time.
async fn send(client: &mut Client, write: &Write) -> Result<Vec<VoiceCall>, Status> {
    let answer = timeout(PATIENCE, write.clone().send(client)).await;
    answer.expect("every write is answered")
}

/// Creates a call, within this time.
async fn create_within(client: &mut Client, time: Duration) -> Result<VoiceCall, Status> {
    let mut request = Request::new(CreateVoiceCallRequest {
        voice_call: Some(inbound()),
        ..Default::default()
    });
    request.set_timeout(time);
    let response = client.create_voice_call(request).await?;
    Ok(response.into_inner().voice_call.expect("it is answered"))
}

/// Asserts that it worked, or that nothing was done and it can be retried: no bug,
/// no guess, nothing else.
#[track_caller]
fn assert_passing<T: std::fmt::Debug>(result: &Result<T, Status>, when: &str) {
    if let Err(status) = result {
        let (code, reason, _) = facts(status);
        let facts = (code, reason.as_str());
        let expected = (Code::Unavailable, "DATABASE_UNAVAILABLE");
        assert_eq!(facts, expected, "{when}: {status:?}");
    }
}

/// Clients on all of a server's threads, which have opened all the sessions that
/// there are for them, and a call.
async fn warm_clients(server: &Server) -> (Vec<Client>, VoiceCall) {
    let mut clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    let call = create(&mut clients[0], inbound()).await;
    let reads = clients.iter().map(|client| every_read(client, &call.uid));
    for answers in join_all(reads).await {
        assert_answered(&answers, "before");
    }
    for client in &mut clients {
        // Each writer session has a part in these.
        create(client, inbound()).await;
        create(client, inbound()).await;
    }
    (clients, call)
}

/// Asserts that the first request of each kind is answered, on every thread.
async fn assert_first_requests(clients: &mut [Client], call: &VoiceCall, when: &str) {
    for (n, client) in (0..).zip(clients) {
        let changed = update_of(VoiceCall {
            duration: Some(n),
            ..call.clone()
        });
        // A create and an update ask the database in different ways.
        let (mut creator, mut updater) = (client.clone(), client.clone());
        let (answers, created, updated) = tokio::join!(
            every_read(client, &call.uid),
            create_within(&mut creator, PATIENCE),
            send(&mut updater, &changed),
        );
        assert_answered(&answers, when);
        assert!(created.is_ok(), "create {when}: {created:?}");
        assert!(updated.is_ok(), "update {when}: {updated:?}");
    }
}
