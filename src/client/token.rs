//! The token that requests carry: kept, checked for changes, and read again when the service
//! refuses it.
//!
//! One read serves all requests that wait for it, and goes on with the next request if they end
//! before it does. If it gives another token than the refused one, a request is sent once more. A
//! stream that resumes is opened again with it, and after an expiry waits for a few attempts until
//! there is one.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt, Shared};
use tokio::time::Instant;

use super::{Client, Error, TokenError, TokenSource, retry, token_source::Bearer};
/// The shortest interval between two checks of a file.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Tokens {
    source: TokenSource,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bearer: Option<Bearer>,
    /// When it was last read, or should have been.
    read_at: Option<Instant>,
    reading: Option<Shared<BoxFuture<'static, Result<Bearer, TokenError>>>>,
}

impl Tokens {
    pub(super) fn new(source: TokenSource) -> Self {
        Self {
            source,
            state: Mutex::default(),
        }
    }

    /// The token for a request. When a file that gave one before cannot be read, the token
    /// stays: the file may just be written.
    pub(super) async fn current(&self) -> Result<Bearer, TokenError> {
        let kept = {
            let state = self.state();
            let is_due = |at: Instant| at.elapsed() >= LOOK_INTERVAL;
            let is_due = self.source.is_looked_at() && state.read_at.is_none_or(is_due);
            match &state.bearer {
                Some(bearer) if !is_due => return Ok(bearer.clone()),
                kept => kept.clone(),
            }
        };
        match (self.read().await, kept) {
            (Err(_), Some(kept)) => Ok(kept),
            (read, _) => read,
        }
    }

    /// The token after the service has refused this one. It is read again, unless that was
    /// done meanwhile.
    async fn renew(&self, refused: &Bearer) -> Result<Bearer, TokenError> {
        let current = self.state().bearer.clone();
        match current {
            Some(bearer) if bearer != *refused => Ok(bearer),
            _ => self.read().await,
        }
    }

    async fn read(&self) -> Result<Bearer, TokenError> {
        let reading = {
            let mut state = self.state();
            let begin = || self.source.clone().read().boxed().shared();
            state.reading.get_or_insert_with(begin).clone()
        };
        let read = reading.clone().await;
        let mut state = self.state();
        // The first that learns of the result keeps it.
        if state.reading.as_ref().is_some_and(|it| it.ptr_eq(&reading)) {
            state.reading = None;
            state.read_at = Some(Instant::now());
            if let Ok(bearer) = &read {
                state.bearer = Some(bearer.clone());
            }
        }
        read
    }

    /// A panic cannot leave it half changed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(formatter)
    }
}

impl Client {
    /// Reads the token, if there is none yet, so that a file or a command without one is noticed
    /// before the first request.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn load_token(&self) -> Result<(), TokenError> {
        match &self.tokens {
            Some(tokens) => tokens.current().await.map(drop),
            None => Ok(()),
        }
    }

    /// Whether reading the token again can give another one.
    fn can_renew(&self) -> bool {
        let tokens = self.tokens.as_ref();
        tokens.is_some_and(|tokens| tokens.source.can_change())
    }

    /// The token for a request, if the client has one.
    pub(super) async fn token(&self, deadline: Instant) -> Result<Option<Bearer>, Error> {
        let Some(tokens) = &self.tokens else {
            return Ok(None);
        };
        match tokio::time::timeout_at(deadline, tokens.current()).await {
            Ok(read) => Ok(Some(read?)),
            Err(_) => Err(tokens
                .source
                .error("it took longer than the deadline")
                .into()),
        }
    }

    /// Reads the token again, if that is what the error asks for. `Ok` if there is another one
    /// to go on with; otherwise the error, which says what became of the token.
    pub(super) async fn renew(
        &self,
        refused: Option<&Bearer>,
        deadline: Instant,
        error: Error,
    ) -> Result<(), Error> {
        let (Some(tokens), Some(refused)) = (&self.tokens, refused) else {
            return Err(error);
        };
        if !error.refuses_token() || !self.can_renew() {
            return Err(error);
        }
        match tokio::time::timeout_at(deadline, tokens.renew(refused)).await {
            Ok(Ok(bearer)) if bearer != *refused => Ok(()),
            Ok(Ok(_)) => Err(error.note(&format!("{} still has the same token", tokens.source))),
            Ok(Err(reason)) => Err(error.note(&reason.to_string())),
            Err(_) => Err(error.note(&format!("{} did not return a token in time", tokens.source))),
        }
    }
}

/// The tokens of a stream that opens itself again.
#[derive(Default)]
pub(super) struct StreamToken {
    /// The one that the stream was last opened with.
    pub(super) bearer: Option<Bearer>,
    /// How often the service has refused one since it last sent a message.
    refusals: u32,
}

impl StreamToken {
    /// The service has sent a message.
    pub(super) fn accepted(&mut self) {
        self.refusals = 0;
    }

    /// Reads the token again, if that is what the error asks for, and returns when to open the
    /// stream again.
    ///
    /// # Errors
    /// This one: opening the stream again would not help.
    pub(super) async fn reopen_delay(
        &mut self,
        client: &Client,
        error: Error,
    ) -> Result<Duration, Error> {
        if !error.refuses_token() || !client.can_renew() {
            return Err(error);
        }
        self.refusals += 1;
        let deadline = Instant::now() + client.deadline;
        let refused = self.bearer.as_ref();
        let (is_new, error) = match client.renew(refused, deadline, error.clone()).await {
            Ok(()) => (true, error),
            Err(error) => (false, error),
        };
        retry::renewal_delay(&error, is_new, self.refusals).ok_or(error)
    }
}
