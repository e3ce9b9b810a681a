//! The client library: typed calls with deadlines, retries and pages.
//!
//! - [`Client`] has a method for each RPC, over the messages of [`proto`]
//! - [`Settings`] say where the service is and how to reach it
//! - [`Error`] is what an answer that is none says, typed
//! - [`Client::watch`] streams changes and resumes by itself, [`Client::import`]
//!   records, [`Client::export`] calls
//! - `retry` decides what is sent again, and when; `window` has what an import may
//!   have to send again
//!
//! ```no_run
//! use futures_util::TryStreamExt;
//! use voicecall::{
//!     proto::{ListVoiceCallsRequest, VoiceCallFilter, VoiceCallStatus},
//!     client::{Client, Settings},
//! };
//!
//! # async fn missed() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new(&Settings::new("https://calls.example.com"))?;
//! let missed = VoiceCallFilter {
//!     statuses: vec![VoiceCallStatus::Missed.into()],
//!     ..VoiceCallFilter::default()
//! };
//! let request = ListVoiceCallsRequest {
//!     filter: Some(missed),
//!     ..ListVoiceCallsRequest::default()
//! };
//! let mut calls = std::pin::pin!(client.list(request));
//! while let Some(call) = calls.try_next().await? {
//!     println!("{} {:?}", call.uid, call.from_number);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! It deliberately knows nothing of the service but its API.
//!
//! [`proto`]: crate::proto

mod error;
mod export;
mod import;
mod pages;
mod retry;
mod settings;
mod watch;
mod window;
mod writes;

pub use error::{Details, Error, FieldViolation};
pub use settings::{Settings, SettingsError, Tls};
pub use tonic::Code;
pub use watch::Watched;

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{
    Request, Response, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

use crate::proto::{
    BatchGetVoiceCallsRequest, BatchGetVoiceCallsResponse, GetVoiceCallRequest,
    GetVoiceCallStatsRequest, GetVoiceCallStatsResponse, ListVoiceCallChangesRequest,
    ListVoiceCallChangesResponse, ListVoiceCallsRequest, ListVoiceCallsResponse, VoiceCall,
    WatchVoiceCallsRequest, WatchVoiceCallsResponse,
    voice_call_service_client::VoiceCallServiceClient,
};

/// The generated client, which sends one request once.
type Stub = VoiceCallServiceClient<Channel>;

/// The header by which a server sees that a request is sent again.
const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";

/// A client of one service. Clones share its connection.
///
/// Every call ends within the deadline, retries included. A write without a
/// request id gets one, so that it can be sent again without being applied
/// twice.
#[derive(Debug, Clone)]
pub struct Client {
    stub: Stub,
    /// For people to read in errors.
    endpoint: Arc<str>,
    authorization: Option<MetadataValue<Ascii>>,
    deadline: Duration,
}

impl Client {
    /// A client that connects when it is first used, and again whenever the
    /// connection is lost. Needs a Tokio runtime around it.
    ///
    /// # Errors
    /// [`SettingsError`]: settings that no server could be reached by.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        Ok(Self {
            stub: Stub::new(settings.channel()?),
            endpoint: settings.endpoint.as_str().into(),
            authorization: settings.authorization()?,
            deadline: settings.deadline,
        })
    }

    /// The same client with another deadline for each call.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self {
            deadline,
            ..self.clone()
        }
    }

    /// Looks up one call. A deleted call is found, with `deleted_at` set.
    ///
    /// # Errors
    /// [`Error`]; `NOT_FOUND` when there is none.
    pub async fn get(&self, request: GetVoiceCallRequest) -> Result<VoiceCall, Error> {
        let send = async |mut stub: Stub, request| stub.get_voice_call(request).await;
        answered(self.call(request, send).await?.voice_call)
    }

    /// Looks up several calls at once. The answer says which do not exist and
    /// which did not fit.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn batch_get(
        &self,
        request: BatchGetVoiceCallsRequest,
    ) -> Result<BatchGetVoiceCallsResponse, Error> {
        let send = async |mut stub: Stub, request| stub.batch_get_voice_calls(request).await;
        self.call(request, send).await
    }

    /// One page of a list; [`Client::list`] goes through all.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list_page(
        &self,
        request: ListVoiceCallsRequest,
    ) -> Result<ListVoiceCallsResponse, Error> {
        let send = async |mut stub: Stub, request| stub.list_voice_calls(request).await;
        self.call(request, send).await
    }

    /// One page of statistics; [`Client::stats`] goes through all.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn stats_page(
        &self,
        request: GetVoiceCallStatsRequest,
    ) -> Result<GetVoiceCallStatsResponse, Error> {
        let send = async |mut stub: Stub, request| stub.get_voice_call_stats(request).await;
        self.call(request, send).await
    }

    /// Sends a request until it is answered, refused for good, or out of time.
    async fn call<M: Clone, R>(
        &self,
        message: M,
        send: impl AsyncFn(Stub, Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<R, Error> {
        let deadline = Instant::now() + self.deadline;
        let mut attempts = 0;
        let mut last = None;
        loop {
            let request = self.request(message.clone(), attempts, Some(deadline));
            attempts += 1;
            let attempt = timeout_at(deadline, send(self.stub.clone(), request)).await;
            let error = match attempt {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => Error::from_status(&status, &self.endpoint),
                Err(_) => Error::out_of_time(),
            };
            let error = error.after(attempts, self.deadline, last.as_ref());
            match retry::wait(&error, attempts) {
                // Waiting in vain would only hide what is wrong.
                Some(wait) if Instant::now() + wait < deadline => sleep(wait).await,
                _ => return Err(error),
            }
            last = Some(error);
        }
    }

    /// Opens a watch. It has no deadline: it lives as long as it is read.
    async fn open_watch(
        &self,
        message: WatchVoiceCallsRequest,
    ) -> Result<Streaming<WatchVoiceCallsResponse>, Error> {
        let request = self.request(message, 0, None);
        let mut stub = self.stub.clone();
        let opened = timeout(self.deadline, stub.watch_voice_calls(request)).await;
        match opened {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.error(&status)),
            // Whatever holds it up may pass.
            Err(_) => Err(Error::new(Code::Unavailable, "no response in time")),
        }
    }

    fn error(&self, status: &Status) -> Error {
        Error::from_status(status, &self.endpoint)
    }

    /// One page of changes.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn changes(
        &self,
        request: ListVoiceCallChangesRequest,
    ) -> Result<ListVoiceCallChangesResponse, Error> {
        let send = async |mut stub: Stub, request| stub.list_voice_call_changes(request).await;
        self.call(request, send).await
    }

    fn request<M>(
        &self,
        message: M,
        previous_attempts: u32,
        deadline: Option<Instant>,
    ) -> Request<M> {
        let mut request = Request::new(message);
        if let Some(deadline) = deadline {
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        let metadata = request.metadata_mut();
        if let Some(authorization) = &self.authorization {
            metadata.insert("authorization", authorization.clone());
        }
        if previous_attempts > 0 {
            metadata.insert(PREVIOUS_ATTEMPTS, previous_attempts.into());
        }
        request
    }
}

/// The call in an answer that always has one.
fn answered(call: Option<VoiceCall>) -> Result<VoiceCall, Error> {
    call.ok_or_else(|| Error::new(Code::Internal, "the response contains no call"))
}
