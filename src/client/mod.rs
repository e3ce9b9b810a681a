//! The client library: typed requests with deadlines, retries and paging.
//!
//! - [`Client`] has a method for each RPC, over the messages of [`proto`]
//! - [`Settings`] say how to reach the service
//! - [`Error`] says why a request failed, typed
//! - [`Client::list`], [`Client::watch`], [`Client::import`] and [`Client::export`] are
//!   streams; a watch and an import resume by themselves after an interruption
//! - [`TokenSource`] says where the bearer token is; `token` keeps it, and reads it again when it
//!   has changed or expired
//! - `retry` decides what is sent again, and when; `window` keeps what an import may have to
//!   send again
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
//! It deliberately knows nothing about the service but its API.
//!
//! [`proto`]: crate::proto

mod error;
mod export;
mod import;
mod pages;
mod retry;
mod settings;
mod token;
mod token_source;
mod watch;
mod window;
mod writes;

pub use error::{Details, Error, FieldViolation};
pub use settings::{Settings, SettingsError, Tls};
pub use token_source::{TokenError, TokenSource};
pub use tonic::Code;
pub use watch::Watched;

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Request, Response, Status, Streaming, transport::Channel};

use self::{token::Tokens, token_source::Bearer};
use crate::proto::{
    BatchGetVoiceCallsRequest, BatchGetVoiceCallsResponse, GetVoiceCallRequest,
    GetVoiceCallStatsRequest, GetVoiceCallStatsResponse, ListVoiceCallChangesRequest,
    ListVoiceCallChangesResponse, ListVoiceCallsRequest, ListVoiceCallsResponse, VoiceCall,
    WatchVoiceCallsRequest, WatchVoiceCallsResponse,
    voice_call_service_client::VoiceCallServiceClient,
};

/// The generated client, which sends each request once.
type Stub = VoiceCallServiceClient<Channel>;

/// The header that tells the server how often the request was sent before.
const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";

/// A client of one service. Clones share its connection.
///
/// Every request ends within the deadline, including its retries. A write without a request
/// id gets one, so that no retry applies it twice. A token that the service refuses is read
/// again, and if there is another one then, the request is sent again once.
#[derive(Debug, Clone)]
pub struct Client {
    stub: Stub,
    /// The URL, for error messages.
    endpoint: Arc<str>,
    tokens: Option<Arc<Tokens>>,
    deadline: Duration,
}

impl Client {
    /// A client that connects when it is first used, and again whenever the connection is
    /// lost. It must be created within a Tokio runtime.
    ///
    /// # Errors
    /// [`SettingsError`]: the settings are invalid.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        Ok(Self {
            stub: Stub::new(settings.channel()?),
            endpoint: settings.endpoint.as_str().into(),
            tokens: settings.tokens()?.map(Arc::new),
            deadline: settings.deadline,
        })
    }

    /// The same client with another deadline for each request.
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
        required_call(self.call(request, send).await?.voice_call)
    }

    /// Looks up several calls at once. The response says which do not exist and which did not
    /// fit.
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

    /// One page of a list; [`Client::list`] goes through all pages.
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

    /// One page of statistics; [`Client::stats`] goes through all pages.
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

    /// Sends a request until it succeeds, fails for a reason that a retry does not fix, or
    /// reaches the deadline.
    async fn call<M: Clone, R>(
        &self,
        message: M,
        send: impl AsyncFn(Stub, Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<R, Error> {
        let deadline = Instant::now() + self.deadline;
        let mut attempts = 0;
        let mut previous = None;
        let mut is_renewed = false;
        loop {
            let bearer = self.token(deadline).await?;
            let request = self.request(message.clone(), attempts, Some(deadline), bearer.as_ref());
            attempts += 1;
            let attempt = timeout_at(deadline, send(self.stub.clone(), request)).await;
            let error = match attempt {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => Error::from_status(&status, &self.endpoint),
                Err(_) => Error::deadline_exceeded(),
            };
            let error = error.with_attempts(attempts, self.deadline, previous.as_ref());
            if error.refuses_token() && !is_renewed {
                is_renewed = true;
                self.renew(bearer.as_ref(), deadline, error).await?;
                continue;
            }
            match retry::delay(&error, attempts) {
                // If the deadline comes before the retry, the error is better returned at once.
                Some(delay) if Instant::now() + delay < deadline => sleep(delay).await,
                _ => return Err(error),
            }
            previous = Some(error);
        }
    }

    /// Opens a watch. The deadline is only for opening it.
    async fn open_watch(
        &self,
        message: WatchVoiceCallsRequest,
        bearer: Option<&Bearer>,
    ) -> Result<Streaming<WatchVoiceCallsResponse>, Error> {
        let request = self.request(message, 0, None, bearer);
        let mut stub = self.stub.clone();
        let opened = timeout(self.deadline, stub.watch_voice_calls(request)).await;
        match opened {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.error(&status)),
            // UNAVAILABLE, because the cause may be temporary.
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
        bearer: Option<&Bearer>,
    ) -> Request<M> {
        let mut request = Request::new(message);
        if let Some(deadline) = deadline {
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        let metadata = request.metadata_mut();
        if let Some(bearer) = bearer {
            metadata.insert("authorization", bearer.clone());
        }
        if previous_attempts > 0 {
            metadata.insert(PREVIOUS_ATTEMPTS, previous_attempts.into());
        }
        request
    }
}

/// The call of a response that always has one.
fn required_call(call: Option<VoiceCall>) -> Result<VoiceCall, Error> {
    call.ok_or_else(|| Error::new(Code::Internal, "the response contains no call"))
}
