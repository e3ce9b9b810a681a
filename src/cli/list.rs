//! `voicecall list`.

use std::pin::pin;

use clap::{Args, ValueEnum};
use futures_util::TryStreamExt;

use super::{
    EXIT_CODES,
    failure::{Failure, note},
    filter::Filter,
    output::Output,
    service::Service,
};
use crate::proto::ListVoiceCallsRequest;

/// The number of calls shown by default.
const DEFAULT_LIMIT: u64 = 50;

/// The most calls in a page.
const MAX_PAGE: u64 = 1000;

/// List calls, newest first.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct List {
    #[command(flatten)]
    filter: Filter,

    /// The order of the calls.
    #[arg(long, default_value = "created-desc", value_name = "ORDER", help_heading = None::<&str>)]
    order: Order,

    /// The most calls to show. Default: 50.
    #[arg(long, value_name = "COUNT",
        value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "all", help_heading = None::<&str>)]
    limit: Option<u64>,

    /// Show all calls.
    #[arg(long, help_heading = None::<&str>)]
    all: bool,

    /// Wait until the service has reached this revision.
    #[arg(
        long,
        default_value_t = 0,
        hide_default_value = true,
        value_name = "REVISION", help_heading = None::<&str>)]
    min_revision: i64,

    #[command(flatten)]
    service: Service,
}

/// The orders of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Order {
    /// Newest first.
    CreatedDesc,
    /// Oldest first.
    Created,
    /// Last updated first.
    UpdatedDesc,
    /// Last updated last.
    Updated,
}

impl Order {
    const fn order_by(self) -> &'static str {
        match self {
            Self::CreatedDesc => "created_at desc",
            Self::Created => "created_at",
            Self::UpdatedDesc => "updated_at desc",
            Self::Updated => "updated_at",
        }
    }
}

impl List {
    pub(super) async fn run(&self) -> Result<(), Failure> {
        let client = self.service.client().await?;
        let limit = match self.limit {
            _ if self.all => u64::MAX,
            limit => limit.unwrap_or(DEFAULT_LIMIT),
        };
        let request = ListVoiceCallsRequest {
            filter: Some(self.filter.message()),
            order_by: self.order.order_by().to_owned(),
            page_size: i32::try_from(limit.min(MAX_PAGE)).unwrap_or_default(),
            min_revision: self.min_revision,
            ..ListVoiceCallsRequest::default()
        };
        let mut output = Output::new(self.service.json);
        let mut left = limit;
        let mut pages = pin!(client.pages(request));
        while left > 0 {
            let Some(mut page) = pages.try_next().await? else {
                break;
            };
            let fits = usize::try_from(left).unwrap_or(usize::MAX);
            let is_cut = page.voice_calls.len() > fits;
            page.voice_calls.truncate(fits);
            left -= page.voice_calls.len() as u64;
            output.calls(&page.voice_calls)?;
            let has_more = is_cut || !page.next_page_token.is_empty();
            if left == 0 && has_more && self.limit.is_none() {
                output.finish()?;
                note(&format!(
                    "only the first {limit} are shown; pass --limit or --all for more"
                ));
            }
        }
        output.finish()?;
        if output.is_empty_screen() {
            note("no calls match");
        }
        Ok(())
    }
}
