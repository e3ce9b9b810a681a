//! ListVoiceCalls: the query from the wire.

use std::sync::Arc;

use crate::{
    api::{
        error::Error,
        request::{commands, filter},
        tokens::{page_token, page_token::ListKey},
        violations::Violations,
    },
    domain::{Narrowing, Revision, View},
    proto,
    store::PageQuery,
};

/// Validates the request of a caller with this narrowing: the key of its list, the query, and its
/// min_revision.
pub(super) fn parse(
    request: proto::ListVoiceCallsRequest,
    narrowing: Option<Arc<Narrowing>>,
) -> Result<(ListKey, PageQuery, Revision), Error> {
    let mut violations = Violations::default();
    let order = filter::order(&request.order_by, &mut violations);
    let list = ListKey::new(request.filter.as_ref(), order);
    let filter = filter::filter(request.filter, &mut violations);
    let limit = commands::page_size(request.page_size, &mut violations);
    let min_revision = commands::min_revision(request.min_revision, &mut violations);
    let filter = violations.or(Some(filter))?;
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(page_token::decode(list, token)?),
    };
    let query = PageQuery {
        view: View { filter, narrowing },
        order,
        after,
        limit,
    };
    Ok((list, query, min_revision))
}
