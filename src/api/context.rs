//! What a handler knows about a request besides its message: the connection, the deadline, and
//! what ends a stream from outside: a shutdown, the end of its connection, or the expiry of the
//! caller's credentials (which `auth/principal` waits for).

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use super::{
    admission::{ConnectionBytes, Count, Place},
    error::Error,
};
use crate::{
    auth::{Certificate, Principal},
    domain::Narrowing,
};

/// Health checks and reflection streams that a connection may have at once.
const OTHER_SHARE: usize = 64;
/// Half of a connection's share, which is an eighth of all places, is left for connections that
/// have no request in progress.
const RESERVE_PART: usize = 2;
/// How long a read may take when the client sets no deadline.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A client's connection, as far as its requests have to know it. The server adds it to each
/// of them.
#[derive(Debug)]
pub struct Connection {
    peer: IpAddr,
    certificate: OnceLock<Certificate>,
    ending: CancellationToken,
    streams: TaskTracker,
    /// One permit for each request that it may have in progress.
    requests: Arc<Semaphore>,
    request_share: usize,
    /// The imports, exports and requests for statistics that it has in progress.
    transfers: Arc<()>,
    /// The same for requests of other services.
    others: Arc<Semaphore>,
    /// What its large requests and responses may hold.
    bytes: ConnectionBytes,
}

impl Connection {
    /// A connection from `peer`, whose streams end when `ending` is cancelled, and which may
    /// have `request_share` requests in progress.
    #[must_use]
    pub fn new(peer: IpAddr, ending: CancellationToken, request_share: usize) -> Self {
        Self {
            peer,
            certificate: OnceLock::new(),
            bytes: ConnectionBytes::default(),
            ending,
            streams: TaskTracker::new(),
            requests: Arc::new(Semaphore::new(request_share)),
            request_share,
            transfers: Arc::new(()),
            others: Arc::new(Semaphore::new(OTHER_SHARE)),
        }
    }

    /// The client's address.
    #[must_use]
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Says which certificate the client has shown, once the handshake is complete.
    pub fn set_certificate(&self, certificate: Certificate) {
        // There is one handshake.
        let _ = self.certificate.set(certificate);
    }

    /// What its large requests and responses may hold.
    pub(super) fn bytes(&self) -> &ConnectionBytes {
        &self.bytes
    }

    /// The certificate that the client has shown.
    pub(super) fn certificate(&self) -> Option<&Certificate> {
        self.certificate.get()
    }

    /// Cancelled when the connection is about to close.
    #[must_use]
    pub fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    /// Ends its watches, imports, exports and health streams, and waits until they have ended.
    pub async fn end_streams(&self) {
        self.ending.cancel();
        self.streams.close();
        self.streams.wait().await;
    }

    /// Counts a stream, for as long as the token lives.
    pub(super) fn stream(&self) -> TaskTrackerToken {
        self.streams.token()
    }

    /// Counts a request, for as long as the permit lives. `free` places are left for all.
    ///
    /// # Errors
    /// The connection has its share of the requests in progress, or too many for what is free.
    pub(super) fn admit(&self, free: usize) -> Result<OwnedSemaphorePermit, Error> {
        let in_progress = self.request_share - self.requests.available_permits();
        let reserve = self.request_share / RESERVE_PART;
        if !leaves_some(in_progress, free, reserve) {
            return Err(Error::Overloaded);
        }
        let permit = Arc::clone(&self.requests).try_acquire_owned();
        permit.map_err(|_| Error::Overloaded)
    }

    /// Counts a transfer by the same rule, for as long as the token lives.
    ///
    /// # Errors
    /// The connection has as many as there are free places.
    pub(super) fn admit_transfer(&self, free: usize) -> Result<TransferToken, Error> {
        // One is the connection's own.
        let in_progress = Arc::strong_count(&self.transfers) - 1;
        if !leaves_some(in_progress, free, 0) {
            return Err(Error::Overloaded);
        }
        Ok(TransferToken(Arc::clone(&self.transfers)))
    }

    /// The same for a request of another service than that of calls.
    ///
    /// # Errors
    /// The connection has too many of them in progress.
    pub(super) fn admit_other(&self) -> Result<OwnedSemaphorePermit, Error> {
        let permit = Arc::clone(&self.others).try_acquire_owned();
        permit.map_err(|_| Error::Overloaded)
    }
}

/// Whether a connection with `in_progress` requests may have another one: it never has more than
/// are free, and its second and later ones leave a reserve for the first ones of others.
fn leaves_some(in_progress: usize, free: usize, reserve: usize) -> bool {
    in_progress == 0 || in_progress + reserve < free
}

/// A transfer that is in progress.
#[derive(Debug)]
pub(super) struct TransferToken(#[expect(dead_code, reason = "it is counted")] Arc<()>);

/// What ends a stream besides its client and its own end.
#[derive(Debug)]
pub(super) struct StopSignals {
    /// Cancelled when the server starts to drain, or the connection is about to close.
    pub(super) ending: CancellationToken,
    pub(super) deadline: Option<Instant>,
    /// Whose credentials may expire, or be revoked.
    principal: Option<Arc<Principal>>,
    /// GOAWAY waits for the stream.
    _stream: Option<TaskTrackerToken>,
}

impl StopSignals {
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Self {
        let connection = request.extensions().get::<Arc<Connection>>();
        let context = Context::of(request);
        Self {
            ending: connection.map_or_else(CancellationToken::new, |it| it.ending.clone()),
            deadline: context.deadline,
            principal: context.principal,
            _stream: connection.map(|it| it.stream()),
        }
    }

    /// Whether the caller's credentials are still good.
    pub(super) fn check(&self) -> Result<(), Error> {
        match &self.principal {
            Some(principal) => principal
                .check(SystemTime::now())
                .map_err(Error::Unauthenticated),
            None => Ok(()),
        }
    }

    /// Returns once one of them ends the stream, and says which.
    pub(super) async fn ended(&self) -> Error {
        let deadline = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let credentials = async {
            match &self.principal {
                Some(principal) => principal.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.ending.cancelled() => Error::Draining,
            () = deadline => Error::DeadlineExceeded,
            refusal = credentials => Error::Unauthenticated(refusal),
        }
    }
}

/// Added to each request by the middleware, read by the handlers.
#[derive(Clone, Default)]
pub(super) struct Context {
    /// The client's deadline, from `grpc-timeout`.
    pub(super) deadline: Option<Instant>,
    /// Who is calling; `None` where nobody is asked.
    pub(super) principal: Option<Arc<Principal>>,
    /// The request's place.
    pub(super) place: Option<Place>,
    /// What a watch or a transfer counts as, for as long as it lives, if its principal has a limit
    /// on them.
    pub(super) counted: Option<Arc<Count>>,
}

impl Context {
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get().cloned().unwrap_or_default()
    }

    /// The deadline of a read: the client's, but no later than 30 s from now, because no
    /// transaction of the service may live longer.
    pub(super) fn read_deadline(&self) -> Instant {
        let latest = Instant::now() + READ_TIMEOUT;
        self.deadline
            .map_or(latest, |deadline| deadline.min(latest))
    }

    /// Gives the request's place back before its end: it has one of another kind.
    pub(super) fn give_back_place(&self) {
        if let Some(place) = &self.place {
            place.give_back();
        }
    }

    /// The calls that the caller may see and change; `None`: all.
    pub(super) fn narrowing(&self) -> Option<Arc<Narrowing>> {
        let principal = self.principal.as_ref()?;
        principal.narrowing().cloned()
    }

    /// The name of who is calling.
    pub(super) fn actor(&self) -> Option<Arc<str>> {
        self.principal
            .as_ref()
            .map(|principal| Arc::clone(principal.name()))
    }
}
