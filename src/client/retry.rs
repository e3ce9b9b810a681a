//! What is sent again, and when: the rules of gRPC's own retry policy, with the
//! delays that the service asks for.
//!
//! Every request is safe to send again: reads are, and the client gives every
//! write a request id. So the code alone decides.

use std::time::Duration;

use tonic::Code;

use super::Error;

/// How often a request is sent at most.
const MAX_ATTEMPTS: u32 = 5;

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(2);
const MAX_RESUME_BACKOFF: Duration = Duration::from_secs(10);

/// How long to wait before the request is sent once more; `None`: not at all.
pub(super) fn wait(error: &Error, attempts: u32) -> Option<Duration> {
    if attempts >= MAX_ATTEMPTS {
        return None;
    }
    let asked_for = error.details.retry_after;
    match error.code {
        Code::Unavailable => {}
        // An overloaded server says when to come back; a request that is too
        // large has the same code and never gets better.
        Code::ResourceExhausted if asked_for.is_some() => {}
        _ => return None,
    }
    let backoff = FIRST_BACKOFF
        .saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1)))
        .min(MAX_BACKOFF);
    // Clients that failed together must not come back together.
    let chance: f64 = rand::random();
    Some(match asked_for {
        Some(delay) => delay + backoff.mul_f64(chance),
        None => backoff.mul_f64(0.8 + 0.4 * chance),
    })
}

/// The same for a stream that has failed so often since it last came forward, and
/// is not given up by their number.
pub(super) fn wait_of_stream(error: &Error, failures: u32) -> Option<Duration> {
    wait(error, failures.min(MAX_ATTEMPTS - 1))
}

/// How long to wait before a watch is resumed that has failed so often in a row;
/// `None`: it cannot be.
pub(super) fn resume(error: &Error, failures: u32) -> Option<Duration> {
    let may_pass = match error.code {
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled => true,
        // A server that takes on no more watches says when to come back.
        Code::ResourceExhausted => error.details.retry_after.is_some(),
        _ => false,
    };
    may_pass.then_some(())?;
    let backoff = FIRST_BACKOFF
        .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)))
        .min(MAX_RESUME_BACKOFF);
    Some(backoff.mul_f64(rand::random()))
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
    fn waits_double_up_to_two_seconds_with_a_fifth_of_jitter() {
        for (attempts, millis) in [(1, 100), (2, 200), (3, 400), (4, 800)] {
            let wait = wait(&error(Code::Unavailable, None), attempts).expect("it is retried");
            let range =
                Duration::from_millis(millis * 8 / 10)..=Duration::from_millis(millis * 12 / 10);
            assert!(range.contains(&wait), "{attempts}: {wait:?}");
        }
    }

    #[test]
    fn the_fifth_attempt_is_the_last() {
        let asked = Some(Duration::from_millis(1));
        assert_eq!(wait(&error(Code::Unavailable, asked), 5), None);
    }

    #[test]
    fn what_the_service_asks_for_is_the_least_that_is_waited() {
        let asked = Duration::from_secs(3);
        for code in [Code::Unavailable, Code::ResourceExhausted] {
            let wait = wait(&error(code, Some(asked)), 1).expect("it is retried");
            assert!((asked..asked + FIRST_BACKOFF).contains(&wait), "{wait:?}");
        }
    }

    #[test]
    fn no_other_code_is_retried_even_if_asked_for() {
        assert_eq!(wait(&error(Code::ResourceExhausted, None), 1), None);
        for code in (0..17).map(Code::from_i32) {
            let asked = Some(Duration::from_millis(1));
            let is_retried = wait(&error(code, asked), 1).is_some();
            let may_be = matches!(code, Code::Unavailable | Code::ResourceExhausted);
            assert_eq!(is_retried, may_be, "{code:?}");
        }
    }
}
