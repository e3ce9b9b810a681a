//! Every kind of read by a caller, compared with what it must see.

use jiff::tz::TimeZone;
use rand::{
    Rng,
    rngs::StdRng,
    seq::{IndexedRandom, IteratorRandom},
};
use tonic::{Code, Status};
use voicecall::proto::{
    BatchGetVoiceCallsRequest, ExportVoiceCallsRequest, GetVoiceCallRequest,
    GetVoiceCallStatsRequest, ListVoiceCallChangesRequest, ListVoiceCallsRequest, VoiceCall,
    VoiceCallFilter, VoiceCallStatsGroup as Group, WatchVoiceCallsRequest,
    list_voice_call_changes_request, watch_voice_calls_request::Start,
};

use super::{
    World,
    callers::Caller,
    live::difference,
    model::{Log, View},
};
use crate::{
    stats,
    support::{
        Client, facts, micros,
        watcher::{Watcher, from, snapshot},
    },
};

/// An RPC, and where it has several ways to read, which.
#[derive(Debug, Clone, Copy)]
pub(super) enum Read {
    Watch,
    Snapshot,
    History,
    List,
    Stats,
    Export,
    BatchGet,
    Get,
}

impl Read {
    pub(super) const ALL: [Self; 8] = [
        Self::Watch,
        Self::Snapshot,
        Self::History,
        Self::List,
        Self::Stats,
        Self::Export,
        Self::BatchGet,
        Self::Get,
    ];
}

/// One comparison.
pub(super) struct Case<'a> {
    pub(super) world: &'a World,
    pub(super) log: &'a Log,
    pub(super) client: Client,
    pub(super) caller: &'a Caller,
    pub(super) view: View,
    pub(super) random: StdRng,
}

/// Why what was read is wrong.
type Wrong = String;

impl Case<'_> {
    /// Reads, and compares.
    pub(super) async fn check(mut self, read: Read) {
        let checked = match read {
            Read::Watch => self.watch().await,
            Read::Snapshot => self.snapshot().await,
            Read::History => self.history().await,
            Read::List => self.list().await,
            Read::Stats => self.stats().await,
            Read::Export => self.export().await,
            Read::BatchGet => self.batch_get().await,
            Read::Get => self.get().await,
        };
        if let Err(wrong) = checked {
            panic!(
                "{read:?} by {}, {:?}: {wrong}",
                self.caller.actor, self.view
            );
        }
    }

    fn filter(&self) -> Option<VoiceCallFilter> {
        Some(self.view.filter.clone())
    }

    /// The start, or some later revision.
    fn any_revision(&mut self) -> i64 {
        match self.random.random() {
            true => 0,
            false => self.random.random_range(0..=self.log.head()),
        }
    }

    async fn watch(&mut self) -> Result<(), Wrong> {
        let (after, with_previous) = (self.any_revision(), self.random.random());
        let request = WatchVoiceCallsRequest {
            filter: self.filter(),
            include_previous: with_previous,
            ..from(Start::AfterRevision(after))
        };
        // Another caller watches the same at the same time: what one is sent may be shared with
        // the other only as far as both see the same.
        let other = self.world.callers.choose(&mut self.random);
        let other = other.expect("there are some");
        let watch = async |caller: &Caller| {
            let request = caller.request(request.clone());
            let watcher = Watcher::start(&mut self.client.clone(), request).await;
            let events = watcher.map_err(said)?.until(self.log.head()).await;
            let view = View {
                narrowing: caller.narrowing,
                ..self.view.clone()
            };
            same(&events, &self.log.events(&view, after, with_previous))
        };
        let (theirs, others) = tokio::join!(watch(self.caller), watch(other));
        theirs.and(others.map_err(|wrong| format!("{}: {wrong}", other.actor)))
    }

    async fn snapshot(&mut self) -> Result<(), Wrong> {
        let request = WatchVoiceCallsRequest {
            filter: self.filter(),
            ..from(snapshot())
        };
        let watcher = Watcher::start(&mut self.client, self.caller.request(request));
        let (calls, revision) = watcher.await.map_err(said)?.snapshot().await;
        same(&[revision], &[self.log.head()])?;
        same(&calls, &self.log.calls(&self.view))
    }

    async fn history(&mut self) -> Result<(), Wrong> {
        use list_voice_call_changes_request::Start;
        let after = self.any_revision();
        let mut request = ListVoiceCallChangesRequest {
            filter: self.filter(),
            start: Some(Start::AfterRevision(after)),
            page_size: any_page_size(&mut self.random),
            min_revision: 0,
        };
        let mut events = Vec::new();
        loop {
            let request_now = self.caller.request(request.clone());
            let page = self.client.list_voice_call_changes(request_now).await;
            let page = page.map_err(said)?.into_inner();
            events.extend(page.events);
            if page.caught_up {
                break;
            }
            request.start = Some(Start::ResumeToken(page.resume_token));
        }
        same(&events, &self.log.events(&self.view, after, false))
    }

    async fn list(&mut self) -> Result<(), Wrong> {
        let (by_update, descends): (bool, bool) = (self.random.random(), self.random.random());
        let key = |call: &VoiceCall| {
            let time = if by_update {
                call.updated_at
            } else {
                call.created_at
            };
            (micros(time), call.uid.clone())
        };
        let mut expected = self.log.calls(&self.view);
        expected.sort_by_key(key);
        let field = if by_update {
            "updated_at"
        } else {
            "created_at"
        };
        let mut request = ListVoiceCallsRequest {
            filter: self.filter(),
            order_by: format!("{field}{}", if descends { " desc" } else { "" }),
            page_size: any_page_size(&mut self.random),
            ..Default::default()
        };
        if descends {
            expected.reverse();
        }
        let mut calls = Vec::new();
        if self.random.random_bool(0.2) {
            // A token is a place, whoever got it, and tells its user nothing.
            let other = self
                .world
                .callers
                .choose(&mut self.random)
                .expect("there are some");
            let page = self
                .client
                .list_voice_calls(other.request(request.clone()))
                .await;
            let page = page.map_err(said)?.into_inner();
            if let Some(last) = page.voice_calls.last().map(key)
                && !page.next_page_token.is_empty()
            {
                expected.retain(|call| (key(call) < last) == descends && key(call) != last);
                request.page_token = page.next_page_token;
            }
        }
        loop {
            let page = self
                .client
                .list_voice_calls(self.caller.request(request.clone()))
                .await;
            let page = page.map_err(said)?.into_inner();
            same(&[page.revision], &[self.log.head()])?;
            calls.extend(page.voice_calls);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return same(&calls, &expected);
            }
        }
    }

    async fn stats(&mut self) -> Result<(), Wrong> {
        let groups = [
            Group::Status,
            Group::Direction,
            Group::Staff,
            Group::Hour,
            Group::Day,
        ];
        let count = self.random.random_range(0..=3);
        let mut groups = groups.into_iter().choose_multiple(&mut self.random, count);
        if groups.contains(&Group::Hour) {
            groups.retain(|group| *group != Group::Day);
        }
        let mut request = GetVoiceCallStatsRequest {
            filter: self.filter(),
            group_by: groups.iter().map(|group| (*group).into()).collect(),
            page_size: any_page_size(&mut self.random),
            ..Default::default()
        };
        let expected = self.log.calls(&self.view);
        let total = i64::try_from(expected.len()).expect("it fits");
        let mut rows = Vec::new();
        loop {
            let request_now = self.caller.request(request.clone());
            let page = self.client.get_voice_call_stats(request_now).await;
            let page = page.map_err(said)?.into_inner();
            same(
                &[page.total_count, page.revision],
                &[total, self.log.head()],
            )?;
            rows.extend(page.rows);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        match stats::difference(&rows, expected, &groups, &TimeZone::UTC) {
            Some(wrong) => Err(wrong),
            None => Ok(()),
        }
    }

    async fn export(&mut self) -> Result<(), Wrong> {
        let request = ExportVoiceCallsRequest {
            filter: self.filter(),
            min_revision: 0,
        };
        let chunks = self
            .client
            .export_voice_calls(self.caller.request(request))
            .await;
        let mut chunks = chunks.map_err(said)?.into_inner();
        let mut calls = Vec::new();
        while let Some(chunk) = chunks.message().await.map_err(said)? {
            same(&[chunk.revision], &[self.log.head()])?;
            calls.extend(chunk.voice_calls);
        }
        same(&calls, &self.log.calls(&self.view))
    }

    /// The calls that the caller sees, whatever the filter: look-ups have none.
    fn covered(&self) -> Vec<VoiceCall> {
        let everything = VoiceCallFilter {
            show_deleted: true,
            ..Default::default()
        };
        self.log.calls(&View {
            filter: everything,
            ..self.view.clone()
        })
    }

    /// Uids of calls that are, were, or never were there.
    fn any_uids(&mut self, count: usize) -> Vec<String> {
        let known = self.world.uids.lock().expect("no panic").clone();
        let mut uids = known.into_iter().choose_multiple(&mut self.random, count);
        uids.push(uuid::Uuid::from_u128(self.random.random()).to_string());
        uids
    }

    async fn batch_get(&mut self) -> Result<(), Wrong> {
        let count = self.random.random_range(0..100);
        let uids = self.any_uids(count);
        let covered = self.covered();
        let find = |uid: &String| covered.iter().find(|call| call.uid == *uid);
        let found: Vec<_> = uids.iter().filter_map(find).cloned().collect();
        let missing: Vec<_> = uids
            .iter()
            .filter(|uid| find(uid).is_none())
            .cloned()
            .collect();
        let request = BatchGetVoiceCallsRequest {
            uids,
            min_revision: 0,
        };
        let got = self
            .client
            .batch_get_voice_calls(self.caller.request(request))
            .await;
        let got = got.map_err(said)?.into_inner();
        same(&got.voice_calls, &found)?;
        same(&got.missing_uids, &missing)
    }

    async fn get(&mut self) -> Result<(), Wrong> {
        let uid = self.any_uids(1).swap_remove(0);
        let covered = self.covered();
        let expected = covered.into_iter().find(|call| call.uid == uid);
        let request = GetVoiceCallRequest {
            uid: uid.clone(),
            min_revision: 0,
        };
        let got = self
            .client
            .get_voice_call(self.caller.request(request))
            .await;
        match (got, expected) {
            (Ok(got), Some(call)) => same(&[got.into_inner().voice_call], &[Some(call)]),
            (Err(status), None) if self.view.narrowing.is_narrowed() => {
                let (code, reason, _) = facts(&status);
                let expected = (Code::NotFound, "CALL_NOT_FOUND".to_owned());
                same(&[(code, reason)], &[expected])?;
                same(
                    &[status.message()],
                    &[format!("there is no call {uid}").as_str()],
                )
            }
            (Err(status), None) => same(&[status.code()], &[Code::NotFound]),
            (got, expected) => Err(format!("{got:?}, but {expected:?}")),
        }
    }
}

/// Few on a page, mostly.
fn any_page_size(random: &mut StdRng) -> i32 {
    match random.random_bool(0.3) {
        true => 1000,
        false => random.random_range(3..40),
    }
}

fn said(status: Status) -> Wrong {
    format!("{status:?}")
}

fn same<T: PartialEq + std::fmt::Debug>(actual: &[T], expected: &[T]) -> Result<(), Wrong> {
    difference(actual, expected).map_or(Ok(()), Err)
}
