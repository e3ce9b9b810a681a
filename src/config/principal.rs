//! The limits of each principal.

use std::num::NonZeroU32;

use clap::Args;

use crate::auth::{Limits, Rate};

/// The limits of each principal, over all its connections. Entries of the policy file may have
/// others. Without authentication there are no principals.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits of each principal")]
pub(crate) struct PrincipalLimits {
    /// Concurrent requests of one principal over all its connections; more are refused with
    /// RESOURCE_EXHAUSTED, RATE_LIMITED. Like the other limits of principals, it is not set by
    /// default, applies only to authenticated callers, and entries of the policy file may have
    /// others.
    #[arg(long, env = "VOICECALL_PRINCIPAL_MAX_REQUESTS", value_name = "COUNT")]
    pub principal_max_requests: Option<NonZeroU32>,

    /// Concurrent watches of one principal.
    #[arg(long, env = "VOICECALL_PRINCIPAL_MAX_WATCHES", value_name = "COUNT")]
    pub principal_max_watches: Option<NonZeroU32>,

    /// Concurrent imports, exports and requests for statistics of one principal.
    #[arg(long, env = "VOICECALL_PRINCIPAL_MAX_TRANSFERS", value_name = "COUNT")]
    pub principal_max_transfers: Option<NonZeroU32>,

    /// Requests a second of one principal; more are refused, with the time until the next is
    /// accepted. A stream is one request. Health checks and reflection are not counted.
    #[arg(
        long,
        env = "VOICECALL_PRINCIPAL_RATE",
        value_name = "REQUESTS PER SECOND"
    )]
    pub principal_rate: Option<NonZeroU32>,

    /// Requests that one principal may send at once after a pause. Default: those of a second.
    #[arg(
        long,
        env = "VOICECALL_PRINCIPAL_BURST",
        value_name = "COUNT",
        requires = "principal_rate"
    )]
    pub principal_burst: Option<NonZeroU32>,
}

impl PrincipalLimits {
    /// The limits.
    #[must_use]
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            requests: self.principal_max_requests,
            watches: self.principal_max_watches,
            transfers: self.principal_max_transfers,
            rate: self
                .principal_rate
                .map(|rate| Rate::new(rate, self.principal_burst)),
        }
    }
}
