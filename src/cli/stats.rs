//! `voicecall stats`.

use std::{
    io::{self, BufWriter, Write},
    pin::pin,
};

use clap::{Args, ValueEnum};
use futures_util::TryStreamExt;

use super::{
    EXIT_CODES,
    bucket::{Bucket, Zone},
    failure::{Failure, note},
    filter::Filter,
    groups::{self, Layout},
    service::Service,
};
use crate::proto::{GetVoiceCallStatsRequest, VoiceCallStatsGroup};

/// The most rows in a page.
const MAX_PAGE: i32 = 1000;

/// Count calls, by status, staff, time and so on.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Stats {
    /// What to group by, separated by commas; at most one of hour, day, week and month.
    #[arg(long, value_name = "GROUP", value_delimiter = ',', help_heading = None::<&str>)]
    by: Vec<By>,

    /// The time zone of hours, days, weeks and months, such as Europe/Berlin.
    #[arg(long, value_name = "ZONE", default_value = "UTC", help_heading = None::<&str>)]
    time_zone: String,

    /// Wait until the service has reached this revision.
    #[arg(
        long,
        default_value_t = 0,
        hide_default_value = true,
        value_name = "REVISION", help_heading = None::<&str>)]
    min_revision: i64,

    #[command(flatten)]
    filter: Filter,

    #[command(flatten)]
    service: Service,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Status,
    Direction,
    /// The member of staff who answered.
    Staff,
    /// The hour in which the calls were created.
    Hour,
    Day,
    /// The week, which begins on Monday.
    Week,
    Month,
}

impl By {
    const fn group(self) -> VoiceCallStatsGroup {
        match self {
            Self::Status => VoiceCallStatsGroup::Status,
            Self::Direction => VoiceCallStatsGroup::Direction,
            Self::Staff => VoiceCallStatsGroup::Staff,
            Self::Hour => VoiceCallStatsGroup::Hour,
            Self::Day => VoiceCallStatsGroup::Day,
            Self::Week => VoiceCallStatsGroup::Week,
            Self::Month => VoiceCallStatsGroup::Month,
        }
    }

    const fn bucket(self) -> Option<Bucket> {
        match self {
            Self::Status | Self::Direction | Self::Staff => None,
            Self::Hour => Some(Bucket::Hour),
            Self::Day => Some(Bucket::Day),
            Self::Week => Some(Bucket::Week),
            Self::Month => Some(Bucket::Month),
        }
    }
}

impl Stats {
    pub(super) async fn run(&self) -> Result<(), Failure> {
        let client = self.service.client().await?;
        let request = GetVoiceCallStatsRequest {
            filter: Some(self.filter.message()),
            group_by: self.by.iter().map(|by| by.group().into()).collect(),
            time_zone: self.time_zone.clone(),
            page_size: MAX_PAGE,
            min_revision: self.min_revision,
            ..GetVoiceCallStatsRequest::default()
        };
        let layout = Layout {
            bucket: self.by.iter().find_map(|by| by.bucket()),
            status: self.by.contains(&By::Status),
            direction: self.by.contains(&By::Direction),
            staff: self.by.contains(&By::Staff),
            zone: Zone::new(&self.time_zone),
        };
        let screen = if self.service.json {
            None
        } else {
            super::output::screen()
        };
        let mut out = BufWriter::new(io::stdout().lock());
        let mut pages = pin!(client.stats(request));
        // A table needs all rows, because its widest one determines the widths.
        let mut rows = Vec::new();
        while let Some(page) = pages.try_next().await? {
            match screen {
                Some(_) => rows.extend(page.rows),
                None if self.service.json => {
                    for row in &page.rows {
                        groups::json(row, &layout, &mut out)?;
                    }
                }
                None => {
                    for row in &page.rows {
                        out.write_all(groups::plain(row, &layout).as_bytes())?;
                    }
                }
            }
        }
        if screen.is_some() && rows.is_empty() {
            note("no calls match");
        } else if let Some(screen) = screen {
            out.write_all(groups::table(&rows, &layout, screen).as_bytes())?;
        }
        Ok(out.flush()?)
    }
}
