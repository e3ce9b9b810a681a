//! Connections for statements of many shapes: bounded, and each statement bounded
//! by its caller's deadline.

use std::time::Duration;

use diesel::{ConnectionError, QueryResult};
use diesel_async::{
    AsyncPgConnection, SimpleAsyncConnection,
    pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod, deadpool},
};
use futures_util::{FutureExt, future};
use tokio::time::Instant;
use tracing::{error, warn};

use super::{
    availability::Availability,
    connection::{Connector, Role},
    error::{ReadError, is_lost},
};

/// A bounded pool of connections. Clones share it.
#[derive(Clone)]
pub(super) struct Pool {
    pool: deadpool::Pool<AsyncPgConnection>,
    availability: Availability,
}

impl Pool {
    pub(super) fn new(
        connector: &Connector,
        availability: &Availability,
        role: Role,
        connections: usize,
    ) -> Self {
        let connector = connector.clone();
        let mut config = ManagerConfig::default();
        config.recycling_method = RecyclingMethod::Fast;
        config.custom_setup = Box::new(move |_| {
            let connector = connector.clone();
            async move {
                let connection = connector.connect(role).await;
                connection.map_err(|error| ConnectionError::BadConnection(error.to_string()))
            }
            .boxed()
        });
        let manager = AsyncDieselConnectionManager::new_with_config("", config);
        let pool = deadpool::Pool::builder(manager)
            .max_size(connections)
            .build();
        Self {
            pool: pool.expect("a pool without timeouts needs no runtime"),
            availability: availability.clone(),
        }
    }

    /// Runs a statement under a statement_timeout that ends at the deadline,
    /// which is set in the same round trip.
    pub(super) async fn run<T>(
        &self,
        deadline: Instant,
        statement: impl AsyncFnOnce(&AsyncPgConnection) -> QueryResult<T>,
    ) -> Result<T, ReadError> {
        if !self.availability.is_up() {
            return Err(ReadError::Unavailable);
        }
        // On the heap: it is large, and part of the future of every request that may
        // come here but seldom does.
        Box::pin(self.run_on_a_connection(deadline, statement)).await
    }

    async fn run_on_a_connection<T>(
        &self,
        deadline: Instant,
        statement: impl AsyncFnOnce(&AsyncPgConnection) -> QueryResult<T>,
    ) -> Result<T, ReadError> {
        let connection = tokio::time::timeout_at(deadline, self.pool.get())
            .await
            .map_err(|_| ReadError::DeadlineExceeded)?
            .map_err(|_| {
                self.availability.report_down();
                ReadError::Unavailable
            })?;
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = set_timeout(&connection, left);
        match future::try_join(timeout, statement(&connection)).await {
            Ok(((), value)) => Ok(value),
            Err(error) if is_lost(&connection, &error).await => {
                warn!("a read lost its connection to the database");
                self.availability.report_down();
                Err(ReadError::Unavailable)
            }
            Err(_) if Instant::now() >= deadline => Err(ReadError::DeadlineExceeded),
            Err(error) => {
                error!(%error, "the database refuses a read");
                Err(ReadError::Internal)
            }
        }
    }
}

async fn set_timeout(connection: &AsyncPgConnection, left: Duration) -> QueryResult<()> {
    // Rounded up: an error before the deadline is taken for the database's own.
    let millis = left.as_millis().saturating_add(1).min(3_600_000);
    let mut connection = connection;
    connection
        .batch_execute(&format!("SET statement_timeout = {millis}"))
        .await
}
