//! Whether a failed request is sent again, and when: the rules of gRPC's retry policy, with the
//! delays that the service asks for. The loops that send are in `Client::call` (the parent
//! module), and in `export`, `watch` and `import`.
//!
//! Every request is safe to retry: reads and imports are, and the client gives every other write
//! a request id. So the code decides: UNAVAILABLE is retried, as which a lost connection counts,
//! whatever the framework calls it, and RESOURCE_EXHAUSTED if the service gives a delay. Backoff is
//! exponential with jitter, and never shorter than that delay. A token that the service refuses is
//! read again, and another one is tried at once.
//!
//! A stream has no deadline, but each step of it has: the next chunk of an export, the next
//! response of an import.

use std::time::Duration;

use tonic::Code;

use super::Error;
use crate::proto::ErrorReason;

/// The most times that a request is sent.
const MAX_ATTEMPTS: u32 = 5;

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(2);
const MAX_RESUME_BACKOFF: Duration = Duration::from_secs(10);

/// The delay before a request is retried; `None` if it is not.
pub(super) fn delay(error: &Error, attempts: u32) -> Option<Duration> {
    if attempts >= MAX_ATTEMPTS {
        return None;
    }
    let requested = error.details.retry_after;
    match error.code {
        Code::Unavailable => {}
        // An overloaded server says when to retry. A request that is too large has the same
        // code, and a retry would not help.
        Code::ResourceExhausted if requested.is_some() => {}
        _ => return None,
    }
    Some(match requested {
        // Clients that failed together must not retry together.
        Some(delay) => delay + full_backoff(attempts).mul_f64(rand::random()),
        None => backoff(attempts),
    })
}

/// The delay after this many attempts, if the service asks for none.
fn backoff(attempts: u32) -> Duration {
    full_backoff(attempts).mul_f64(0.8 + 0.4 * rand::random::<f64>())
}

fn full_backoff(attempts: u32) -> Duration {
    FIRST_BACKOFF
        .saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1)))
        .min(MAX_BACKOFF)
}

/// The delay before an import is opened again after this many failures without progress;
/// `None` if it is not. The number of failures is not limited.
pub(super) fn reopen_delay(error: &Error, failures: u32) -> Option<Duration> {
    delay(error, failures.min(MAX_ATTEMPTS - 1))
}

/// The delay before a watch is resumed after this many failures in a row; `None` if it is
/// not.
pub(super) fn resume_delay(error: &Error, failures: u32) -> Option<Duration> {
    let requested = error.details.retry_after;
    let is_transient = match error.code {
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled => true,
        // A server that has too many watches says when to retry.
        Code::ResourceExhausted => requested.is_some(),
        _ => false,
    };
    is_transient.then_some(())?;
    let backoff = FIRST_BACKOFF
        .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)))
        .min(MAX_RESUME_BACKOFF);
    Some(requested.unwrap_or_default() + backoff.mul_f64(rand::random()))
}

/// The delay before a stream is opened again after its token was refused this many times
/// without progress; `None` if it is not. `is_new`: reading it again has given another one.
///
/// An expired token may be replaced a little later than it expires. One that was revoked or
/// never good is not waited for.
pub(super) fn renewal_delay(error: &Error, is_new: bool, refusals: u32) -> Option<Duration> {
    let has_expired = error.reason() == Some(ErrorReason::TokenExpired);
    match refusals {
        1 if is_new => Some(Duration::ZERO),
        _ if has_expired && refusals < MAX_ATTEMPTS => Some(backoff(refusals)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: Code, retry_after: Option<Duration>) -> Error {
        let mut error = Error::new(code, "");
        error.details.retry_after = retry_after;
        error
    }

    #[test]
    fn delays_double_up_to_two_seconds_with_a_fifth_of_jitter() {
        for (attempts, millis) in [(1, 100), (2, 200), (3, 400), (4, 800)] {
            let delay = delay(&error(Code::Unavailable, None), attempts).expect("it is retried");
            let range =
                Duration::from_millis(millis * 8 / 10)..=Duration::from_millis(millis * 12 / 10);
            assert!(range.contains(&delay), "{attempts}: {delay:?}");
        }
    }

    #[test]
    fn the_fifth_attempt_is_the_last() {
        let asked = Some(Duration::from_millis(1));
        assert_eq!(delay(&error(Code::Unavailable, asked), 5), None);
    }

    #[test]
    fn the_delay_is_at_least_what_the_service_asks_for() {
        let asked = Duration::from_secs(3);
        for code in [Code::Unavailable, Code::ResourceExhausted] {
            let delay = delay(&error(code, Some(asked)), 1).expect("it is retried");
            assert!((asked..asked + FIRST_BACKOFF).contains(&delay), "{delay:?}");
            let delay = resume_delay(&error(code, Some(asked)), 1).expect("it is resumed");
            assert!((asked..asked + FIRST_BACKOFF).contains(&delay), "{delay:?}");
        }
    }

    #[test]
    fn a_stream_goes_on_with_another_token_and_waits_for_one_only_after_an_expiry() {
        let mut error = error(Code::Unauthenticated, None);
        for (reason, is_new, refusals, millis) in [
            ("TOKEN_EXPIRED", true, 1, Some(0)),
            ("TOKEN_EXPIRED", true, 2, Some(200)),
            ("TOKEN_EXPIRED", false, 1, Some(100)),
            ("TOKEN_EXPIRED", false, 4, Some(800)),
            ("TOKEN_EXPIRED", true, 5, None),
            ("TOKEN_EXPIRED", false, 5, None),
            ("CREDENTIALS_INVALID", true, 1, Some(0)),
            ("CREDENTIALS_INVALID", true, 2, None),
            ("CREDENTIALS_INVALID", false, 1, None),
        ] {
            error.details.reason = Some(reason.to_owned());
            let delay = renewal_delay(&error, is_new, refusals);
            let is_right = match (delay, millis) {
                (Some(delay), Some(millis)) => (millis * 8 / 10..=millis * 12 / 10)
                    .contains(&u64::try_from(delay.as_millis()).expect("short")),
                (delay, millis) => delay.is_none() && millis.is_none(),
            };
            assert!(is_right, "{reason} {is_new} {refusals}: {delay:?}");
        }
    }

    #[test]
    fn no_other_code_is_retried_even_if_asked_for() {
        assert_eq!(delay(&error(Code::ResourceExhausted, None), 1), None);
        for code in (0..17).map(Code::from_i32) {
            let asked = Some(Duration::from_millis(1));
            let is_retried = delay(&error(code, asked), 1).is_some();
            let may_be = matches!(code, Code::Unavailable | Code::ResourceExhausted);
            assert_eq!(is_retried, may_be, "{code:?}");
        }
    }
}
