//! The handlers of all RPCs. Each one validates the request, calls the store or the feed,
//! and converts the result.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt};
use prost::Message;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use tonic::{Request, Response, Status, Streaming};

use super::{changes, export, import, list, narrowed, statistics, watch};
use crate::{
    api::{
        Limits,
        admission::{Budget, HasOwnPlace},
        context::{Connection, Context, StopSignals, TransferToken},
        error::{Error, TooLarge},
        request::{commands, commands::Parsed, uids},
        response::{budget::ResponseBudget, calls},
        tokens::page_token,
        violations::Violations,
    },
    domain::{Narrowing, Revision, Uuid},
    feed::Feed,
    proto,
    proto::voice_call_service_server::VoiceCallService,
    store::{Action, Preview, Store, Written},
};

/// Bytes that the filters of all watches may hold, and how many there are for a byte of a request:
/// a name of 64 bytes is held twice, by the filter and by the queues.
const FILTER_BYTES: usize = 256 * 1024 * 1024;
const FILTER_COST: usize = 2;
/// Watches that read where the log ends at once.
const MAX_STARTS: usize = 64;
/// Uids of a batch look-up that are read at once. The response ends at 2 MiB, and calls that
/// are read beyond that are read for nothing.
const LOOKUP_CHUNK: usize = 250;

/// The service, over a store.
#[derive(Clone)]
pub(crate) struct Service {
    store: Store,
    feed: Feed,
    /// One permit for each concurrent watch.
    watches: Arc<Semaphore>,
    /// What the filters of watches may hold.
    filter_bytes: Budget,
    /// One permit for each watch that is starting; more wait in line.
    starts: Arc<Semaphore>,
    /// One permit for each concurrent import, export or request for statistics.
    transfers: Arc<Semaphore>,
}

impl Service {
    pub(crate) fn new(store: Store, feed: Feed, limits: Limits) -> Self {
        Self {
            store,
            feed,
            watches: Arc::new(Semaphore::new(limits.max_watches)),
            filter_bytes: Budget::new(FILTER_BYTES),
            starts: Arc::new(Semaphore::new(MAX_STARTS)),
            transfers: Arc::new(Semaphore::new(limits.max_transfers)),
        }
    }

    async fn write(&self, mut parsed: Parsed, context: &Context) -> Result<Written, Error> {
        let has_request_id = parsed.write.request.is_some();
        parsed.write.principal = context.actor();
        let narrowing = narrowed::of_write(&parsed, context)?;
        parsed.write.narrowing.clone_from(&narrowing);
        let mut written = self.store.write(parsed.write).await;
        if let Some(narrowing) = narrowing {
            written = narrowed::result(written, &narrowing);
        }
        written.map_err(|error| Error::Write {
            error,
            has_request_id,
        })
    }

    /// The call as the write would leave it.
    async fn preview(
        &self,
        mut parsed: Parsed,
        context: &Context,
    ) -> Result<Option<proto::VoiceCall>, Error> {
        let has_request_id = parsed.write.request.is_some();
        parsed.write.narrowing = narrowed::of_write(&parsed, context)?;
        let (now, deadline) = (self.store.now(), context.read_deadline());
        let preview = self.store.preview(parsed.write, deadline).await;
        let preview = preview.map_err(|error| Error::Write {
            error,
            has_request_id,
        })?;
        Ok(match preview {
            Preview::Change(call) => Some(calls::pending(*call, now)),
            Preview::Unchanged(call) => Some(calls::shared(call)),
            Preview::Absent => None,
        })
    }

    async fn write_one(
        &self,
        parsed: Parsed,
        context: &Context,
    ) -> Result<Option<proto::VoiceCall>, Error> {
        if parsed.validate_only {
            return self.preview(parsed, context).await;
        }
        let written = self.write(parsed, context).await?;
        Ok(written.calls.into_iter().next().map(calls::shared))
    }

    /// Looks up calls in chunks until they fill the response.
    async fn batch_get(
        &self,
        uids: &[Uuid],
        narrowing: Option<&Arc<Narrowing>>,
        min_revision: Revision,
        deadline: Instant,
    ) -> Result<proto::BatchGetVoiceCallsResponse, Error> {
        let mut response = proto::BatchGetVoiceCallsResponse::default();
        let mut budget = ResponseBudget::new();
        let mut uids = uids.iter();
        while !uids.as_slice().is_empty() {
            let chunk = uids.as_slice().iter().take(LOOKUP_CHUNK).copied().collect();
            // In the order of the chunk, without those that do not exist.
            let narrowing = narrowing.cloned();
            let calls = self.store.get(chunk, narrowing, min_revision, deadline);
            let calls = calls.await?;
            let mut calls = calls.into_iter().peekable();
            for _ in 0..LOOKUP_CHUNK {
                let rest = uids.as_slice();
                let Some(uid) = uids.next() else { break };
                let Some(call) = calls.next_if(|call| call.uid == *uid) else {
                    response.missing_uids.push(uid.to_string());
                    continue;
                };
                let call = calls::shared(call);
                if !budget.reserve(&call) {
                    response.remaining_uids = rest.iter().map(Uuid::to_string).collect();
                    return Ok(response);
                }
                response.voice_calls.push(call);
            }
        }
        Ok(response)
    }
}

#[tonic::async_trait]
impl VoiceCallService for Service {
    async fn create_voice_call(
        &self,
        request: Request<proto::CreateVoiceCallRequest>,
    ) -> Result<Response<proto::CreateVoiceCallResponse>, Status> {
        let context = Context::of(&request);
        let request = request.into_inner();
        let parsed = commands::create(request, self.store.now()).map_err(Error::from)?;
        let is_preview = parsed.validate_only;
        let uid_is_ours = matches!(parsed.write.action, Action::CreateFresh(_));
        let mut voice_call = self.write_one(parsed, &context).await?;
        if is_preview && uid_is_ours {
            // The uid of the preview is not the one that the call will get.
            voice_call.iter_mut().for_each(|call| call.uid.clear());
        }
        Ok(Response::new(proto::CreateVoiceCallResponse { voice_call }))
    }

    async fn batch_create_voice_calls(
        &self,
        request: Request<proto::BatchCreateVoiceCallsRequest>,
    ) -> Result<Response<proto::BatchCreateVoiceCallsResponse>, Status> {
        let context = Context::of(&request);
        let request = request.into_inner();
        let mut budget = ResponseBudget::for_calls_to_create();
        if !request.voice_calls.iter().all(|call| budget.reserve(call)) {
            return Err(Error::MessageTooLarge(TooLarge::Response).into());
        }
        let parsed = commands::batch_create(request, self.store.now()).map_err(Error::from)?;
        let written = self.write(parsed, &context).await?;
        Ok(Response::new(proto::BatchCreateVoiceCallsResponse {
            voice_calls: written.calls.into_iter().map(calls::shared).collect(),
        }))
    }

    async fn get_voice_call(
        &self,
        request: Request<proto::GetVoiceCallRequest>,
    ) -> Result<Response<proto::GetVoiceCallResponse>, Status> {
        let context = Context::of(&request);
        let request = request.into_inner();
        let mut violations = Violations::default();
        let uid = uids::uid(&request.uid, "uid", &mut violations);
        let min_revision = commands::min_revision(request.min_revision, &mut violations);
        let uid = violations.or(uid).map_err(Error::from)?;
        let deadline = context.read_deadline();
        let narrowing = context.narrowing();
        let is_narrowed = narrowing.is_some();
        let uids = vec![uid];
        let calls = self
            .store
            .get(uids, narrowing, min_revision, deadline)
            .await;
        let Some(call) = calls.map_err(Error::from)?.into_iter().next() else {
            // Who is narrowed is not told, and not by the time that it takes either.
            let purged = self.store.is_purged(uid, deadline).await;
            return Err(match purged.map_err(Error::from)? && !is_narrowed {
                true => Error::Purged(uid).into(),
                false => Error::NotFound(uid).into(),
            });
        };
        Ok(Response::new(proto::GetVoiceCallResponse {
            voice_call: Some(calls::shared(call)),
        }))
    }

    async fn batch_get_voice_calls(
        &self,
        request: Request<proto::BatchGetVoiceCallsRequest>,
    ) -> Result<Response<proto::BatchGetVoiceCallsResponse>, Status> {
        let context = Context::of(&request);
        let request = request.into_inner();
        let mut violations = Violations::default();
        let uids = uids::batch_uids(&request.uids, &mut violations);
        let min_revision = commands::min_revision(request.min_revision, &mut violations);
        let uids = violations.or(Some(uids)).map_err(Error::from)?;
        let deadline = context.read_deadline();
        let narrowing = context.narrowing();
        let response = self.batch_get(&uids, narrowing.as_ref(), min_revision, deadline);
        let response = response.await?;
        Ok(Response::new(response))
    }

    async fn list_voice_calls(
        &self,
        request: Request<proto::ListVoiceCallsRequest>,
    ) -> Result<Response<proto::ListVoiceCallsResponse>, Status> {
        let context = Context::of(&request);
        let request = request.into_inner();
        let (key, query, min_revision) = list::parse(request, context.narrowing())?;
        let deadline = context.read_deadline();
        let page = self.store.page(&query, min_revision, deadline).await;
        let page = page.map_err(Error::from)?;
        let revision = page.position.revision;
        let mut has_more = page.has_more;
        let mut budget = ResponseBudget::new();
        let mut last = None;
        let mut voice_calls = Vec::with_capacity(page.calls.len());
        for call in page.calls {
            let key = query.order.key(&call);
            let call = calls::call(call);
            if !budget.reserve(&call) {
                has_more = true;
                break;
            }
            last = Some(key);
            voice_calls.push(call);
        }
        let next_page_token = match last {
            Some(last) if has_more => page_token::encode(key, last),
            _ => String::new(),
        };
        Ok(Response::new(proto::ListVoiceCallsResponse {
            voice_calls,
            next_page_token,
            revision,
        }))
    }

    async fn update_voice_call(
        &self,
        request: Request<proto::UpdateVoiceCallRequest>,
    ) -> Result<Response<proto::UpdateVoiceCallResponse>, Status> {
        let context = Context::of(&request);
        let parsed =
            commands::update(request.into_inner(), self.store.now()).map_err(Error::from)?;
        let voice_call = self.write_one(parsed, &context).await?;
        Ok(Response::new(proto::UpdateVoiceCallResponse { voice_call }))
    }

    async fn handle_voice_call(
        &self,
        request: Request<proto::HandleVoiceCallRequest>,
    ) -> Result<Response<proto::HandleVoiceCallResponse>, Status> {
        let context = Context::of(&request);
        let parsed = commands::handle(request.into_inner()).map_err(Error::from)?;
        let voice_call = self.write_one(parsed, &context).await?;
        Ok(Response::new(proto::HandleVoiceCallResponse { voice_call }))
    }

    async fn delete_voice_call(
        &self,
        request: Request<proto::DeleteVoiceCallRequest>,
    ) -> Result<Response<proto::DeleteVoiceCallResponse>, Status> {
        let context = Context::of(&request);
        let parsed = commands::delete(request.into_inner()).map_err(Error::from)?;
        let voice_call = self.write_one(parsed, &context).await?;
        Ok(Response::new(proto::DeleteVoiceCallResponse { voice_call }))
    }

    async fn undelete_voice_call(
        &self,
        request: Request<proto::UndeleteVoiceCallRequest>,
    ) -> Result<Response<proto::UndeleteVoiceCallResponse>, Status> {
        let context = Context::of(&request);
        let parsed = commands::undelete(request.into_inner()).map_err(Error::from)?;
        let voice_call = self.write_one(parsed, &context).await?;
        Ok(Response::new(proto::UndeleteVoiceCallResponse {
            voice_call,
        }))
    }

    async fn purge_voice_call(
        &self,
        request: Request<proto::PurgeVoiceCallRequest>,
    ) -> Result<Response<proto::PurgeVoiceCallResponse>, Status> {
        let context = Context::of(&request);
        let parsed = commands::purge(request.into_inner()).map_err(Error::from)?;
        let revision = self.write(parsed, &context).await?.revision;
        Ok(Response::new(proto::PurgeVoiceCallResponse { revision }))
    }

    async fn list_voice_call_changes(
        &self,
        request: Request<proto::ListVoiceCallChangesRequest>,
    ) -> Result<Response<proto::ListVoiceCallChangesResponse>, Status> {
        let context = Context::of(&request);
        let query = changes::parse(request.into_inner(), context.narrowing());
        let query = query.map_err(Error::from)?;
        let deadline = context.read_deadline();
        let page = changes::list(&self.store, &self.feed, query, deadline).await?;
        Ok(Response::new(page))
    }

    type WatchVoiceCallsStream = ResponseStream<proto::WatchVoiceCallsResponse>;

    async fn watch_voice_calls(
        &self,
        request: Request<proto::WatchVoiceCallsRequest>,
    ) -> Result<Response<Self::WatchVoiceCallsStream>, Status> {
        let (context, stop) = (Context::of(&request), StopSignals::of(&request));
        let permit = admit(&self.watches)?;
        let filter_bytes = FILTER_COST * request.get_ref().encoded_len();
        let mut filter = self.filter_bytes.claim_of_all();
        if !filter.add(filter_bytes) {
            return Err(Error::Overloaded.into());
        }
        let query = watch::parse(request.into_inner(), context.narrowing());
        let query = query.map_err(Error::from)?;
        // Ten thousand that start at once are a queue, and leave the places to other requests.
        context.give_back_place();
        let deadline = context.read_deadline();
        let turn = timeout_at(deadline, self.starts.acquire()).await;
        let turn = turn.map_err(|_| Error::DeadlineExceeded)?;
        let stream = watch::start(self.store.log(), &self.feed, query, stop, deadline).await?;
        drop(turn);
        Ok(stream_response((permit, filter, context.counted), stream))
    }

    async fn get_voice_call_stats(
        &self,
        request: Request<proto::GetVoiceCallStatsRequest>,
    ) -> Result<Response<proto::GetVoiceCallStatsResponse>, Status> {
        let context = Context::of(&request);
        let _permit = admit_transfer(&self.transfers, &request)?;
        let stats = statistics::get(&self.store, request.into_inner(), &context).await?;
        Ok(Response::new(stats))
    }

    type ImportVoiceCallsStream = ResponseStream<proto::ImportVoiceCallsResponse>;

    async fn import_voice_calls(
        &self,
        request: Request<Streaming<proto::ImportVoiceCallsRequest>>,
    ) -> Result<Response<Self::ImportVoiceCallsStream>, Status> {
        let (context, stop) = (Context::of(&request), StopSignals::of(&request));
        let permit = admit_transfer(&self.transfers, &request)?;
        let records = request.into_inner();
        let stream = import::run(self.store.clone(), records, context.actor(), stop);
        Ok(stream_response((permit, context.counted), stream))
    }

    type ExportVoiceCallsStream = ResponseStream<proto::ExportVoiceCallsResponse>;

    async fn export_voice_calls(
        &self,
        request: Request<proto::ExportVoiceCallsRequest>,
    ) -> Result<Response<Self::ExportVoiceCallsStream>, Status> {
        let (context, stop) = (Context::of(&request), StopSignals::of(&request));
        let permit = admit_transfer(&self.transfers, &request)?;
        let query = export::parse(request.into_inner(), context.narrowing());
        let query = query.map_err(Error::from)?;
        let deadline = context.read_deadline();
        let reached = self.store.tail(query.min_revision, deadline).await;
        reached.map_err(Error::from)?;
        let stream = export::run(&self.feed, query, stop);
        Ok(stream_response((permit, context.counted), stream))
    }
}

/// A stream of responses.
type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A place for a transfer, of which a connection has no more than are free.
fn admit_transfer<T>(
    transfers: &Arc<Semaphore>,
    request: &Request<T>,
) -> Result<(OwnedSemaphorePermit, Option<TransferToken>), Error> {
    let connection = request.extensions().get::<Arc<Connection>>();
    let free = transfers.available_permits();
    let token = connection.map(|connection| connection.admit_transfer(free));
    Ok((admit(transfers)?, token.transpose()?))
}

fn admit(permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Error> {
    let permit = Arc::clone(permits).try_acquire_owned();
    permit.map_err(|_| Error::Overloaded)
}

/// A stream that holds its own place, and not that of its request, for as long as it lives.
fn stream_response<T>(
    permit: impl Send + 'static,
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> Response<ResponseStream<T>> {
    let stream: ResponseStream<T> = Box::pin(stream.inspect(move |_| {
        let _ = &permit;
    }));
    let mut response = Response::new(stream);
    response.extensions_mut().insert(HasOwnPlace);
    response
}
