//! Purges: when one is answered, no read that begins later tells what was purged, on either
//! replica, and no repeat tells a right guess from a wrong one.

use std::{sync::Arc, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use voicecall::proto::{
    CreateVoiceCallRequest, ListVoiceCallChangesRequest, VoiceCall, VoiceCallFilter,
    list_voice_call_changes_request::Start,
};

use crate::support::{
    Client, inbound,
    load::{DEADLINE, TOO_LATE, reason, send_until_known},
    request_id,
    server::client,
    tally::Tally,
    told::all_that_is_told,
    writes::{Write, create_of, purge_of, update_of, within},
};

const PAUSE: Duration = Duration::from_millis(500);

/// One that purges.
pub(super) struct Purger {
    random: StdRng,
    replicas: [Client; 2],
    /// What its calls have in common.
    staff: String,
    tally: Arc<Tally>,
    give_up: CancellationToken,
}

impl Purger {
    pub(super) fn new(seed: u64, replicas: &[String; 2], tally: &Arc<Tally>) -> Self {
        let [first, second] = replicas;
        Self {
            random: StdRng::seed_from_u64(seed),
            replicas: [client(first), client(second)],
            staff: format!("staff-{}", request_id()),
            tally: Arc::clone(tally),
            give_up: CancellationToken::new(),
        }
    }

    /// Creates calls and purges them until it is stopped.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut pause = interval(PAUSE);
        while !stop.is_cancelled() {
            pause.tick().await;
            // `None`: a fault was in the way.
            let _ = self.purge_one().await;
        }
    }

    async fn send(&mut self, write: &Write) -> Option<VoiceCall> {
        let replica = &mut self.replicas[self.random.random_range(0..2)];
        match send_until_known(write, replica, true, &self.tally, &self.give_up).await {
            Some(Ok(calls)) => calls.into_iter().next(),
            Some(Err(status)) => {
                match reason(&status).as_str() {
                    "REVISION_COMPACTED" => self.tally.add(TOO_LATE, 1),
                    _ => self
                        .tally
                        .violation("a write before a purge", || format!("{write:?}: {status}")),
                }
                None
            }
            None => None,
        }
    }

    async fn purge_one(&mut self) -> Option<()> {
        let token = self.token().await?;
        let secret = format!("secret-{}", request_id());
        let with_summary = |uid: &str, summary: &str| VoiceCall {
            uid: uid.into(),
            call_summary: Some(summary.into()),
            staff_uid: Some(self.staff.clone()),
            ..inbound()
        };
        let create = create_of(with_summary(&request_id(), &secret));
        let Write::Create(CreateVoiceCallRequest {
            voice_call: Some(call),
            request_id: create_id,
            ..
        }) = &create
        else {
            panic!("it is a create");
        };
        let uid = call.uid.clone();
        let guess = Write::Create(CreateVoiceCallRequest {
            voice_call: Some(with_summary(&uid, "a guess")),
            request_id: create_id.clone(),
            ..Default::default()
        });
        let change = update_of(with_summary(&uid, "nothing to hide"));
        self.send(&create).await?;
        if self.random.random_bool(0.5) {
            self.send(&change).await?;
        }
        let purge = purge_of(&uid);
        let replica = &mut self.replicas[self.random.random_range(0..2)];
        let purged = send_until_known(&purge, replica, true, &self.tally, &self.give_up).await;
        if let Some(Err(status)) = purged {
            self.tally
                .violation("a purge is refused", || status.to_string());
            return None;
        }
        purged?.ok()?;
        self.tally.add("purges answered", 1);
        let all = VoiceCallFilter {
            staff_uids: vec![self.staff.clone()],
            show_deleted: true,
            ..Default::default()
        };
        let [first, second] = &self.replicas;
        let told = tokio::join!(
            all_that_is_told(first, &uid, &token, Some(&all)),
            all_that_is_told(second, &uid, &token, Some(&all))
        );
        for (name, text) in told.0.into_iter().chain(told.1) {
            self.tally.add("reads after a purge", 1);
            if text.contains(&secret) {
                self.tally
                    .violation("told after a purge", || format!("{uid} by {name}"));
            }
        }
        for write in [create, guess] {
            let replica = &mut self.replicas[self.random.random_range(0..2)];
            let answer = write.clone().send_within(replica, Some(DEADLINE)).await;
            self.expect_purged(&write, answer);
        }
        Some(())
    }

    /// Right and wrong guesses are refused alike.
    fn expect_purged(&self, write: &Write, answer: Result<Vec<VoiceCall>, Status>) {
        match answer {
            Err(status) if reason(&status) == "CALL_PURGED" => {
                self.tally.add("repeats after a purge", 1);
            }
            Err(status) if is_passing(&status) => {}
            other => self
                .tally
                .violation("a repeat after a purge", || format!("{write:?}: {other:?}")),
        }
    }

    /// A token of the present end of the log.
    async fn token(&mut self) -> Option<String> {
        let first = create_of(VoiceCall {
            staff_uid: Some(self.staff.clone()),
            ..inbound()
        });
        let call = self.send(&first).await?;
        let request = ListVoiceCallChangesRequest {
            filter: Some(VoiceCallFilter {
                uids: vec![call.uid],
                ..Default::default()
            }),
            start: Some(Start::AfterRevision(call.revision - 1)),
            min_revision: call.revision,
            ..Default::default()
        };
        let replica = &mut self.replicas[self.random.random_range(0..2)];
        let page = replica.list_voice_call_changes(within(request, Some(DEADLINE)));
        Some(page.await.ok()?.into_inner().resume_token)
    }
}

/// Whether the error says to try again.
fn is_passing(status: &Status) -> bool {
    use tonic::Code::{Cancelled, DeadlineExceeded, ResourceExhausted, Unavailable};
    matches!(
        status.code(),
        Cancelled | DeadlineExceeded | ResourceExhausted | Unavailable
    )
}
