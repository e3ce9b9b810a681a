//! Where a client resumes in the change log.

use tokio::time::Instant;

use crate::{
    api::{error::Error, tokens::resume_token::ResumeToken},
    feed::Feed,
    store::{LogError, Position, Tail},
};

/// The position of a resume token in the log that ends at `tail`.
pub(crate) async fn resume(
    feed: &Feed,
    token: &str,
    tail: &Tail,
    deadline: Instant,
) -> Result<Position, Error> {
    let ResumeToken { feed_id, position } = ResumeToken::decode(token)?;
    if feed_id != tail.feed_id {
        return Err(Error::Log(LogError::Reset));
    }
    feed.check(position, deadline).await?;
    Ok(position)
}
