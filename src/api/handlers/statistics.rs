//! GetVoiceCallStats: the query from the wire, and the rows to the wire.

use crate::{
    api::{
        context::Context,
        error::Error,
        request::{commands, filter},
        response::calls,
        tokens::{page_token, page_token::StatsKey},
        violations::Violations,
    },
    domain::{
        Identifier, View,
        stats::{Bucket, Group, Groups},
    },
    proto,
    store::{StatsQuery, Store},
};

const UTC: &str = "UTC";
/// No time zone has a longer name.
const MAX_ZONE_LEN: usize = 64;

/// Handles the request.
pub(crate) async fn get(
    store: &Store,
    request: proto::GetVoiceCallStatsRequest,
    context: &Context,
) -> Result<proto::GetVoiceCallStatsResponse, Error> {
    let deadline = context.read_deadline();
    let mut violations = Violations::default();
    let min_revision = commands::min_revision(request.min_revision, &mut violations);
    let limit = commands::page_size(request.page_size, &mut violations);
    let groups = groups(&request.group_by, &mut violations);
    let time_zone = match request.time_zone.as_str() {
        "" => UTC,
        zone => zone,
    };
    if time_zone != UTC
        && (time_zone.len() > MAX_ZONE_LEN || !store.knows_time_zone(time_zone, deadline).await?)
    {
        violations.push("time_zone", "is not an IANA time zone");
    }
    let key = StatsKey::new(request.filter.as_ref(), groups, time_zone);
    let filter = filter::filter(request.filter, &mut violations);
    let filter = violations.or(Some(filter))?;
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(page_token::decode_group(key, token)?),
    };
    let query = StatsQuery {
        view: View {
            filter,
            narrowing: context.narrowing(),
        },
        groups,
        time_zone: time_zone.into(),
        after,
        limit,
    };
    let stats = store.count(&query, min_revision, deadline).await?;
    let next_page_token = match stats.groups.last() {
        Some(last) if stats.has_more => page_token::encode_group(key, &last.key),
        _ => String::new(),
    };
    Ok(proto::GetVoiceCallStatsResponse {
        rows: stats.groups.into_iter().map(row).collect(),
        next_page_token,
        total_count: stats.total_count,
        revision: stats.revision,
    })
}

fn groups(group_by: &[i32], violations: &mut Violations) -> Groups {
    use proto::VoiceCallStatsGroup as G;
    let mut groups = Groups::default();
    for (index, group) in group_by.iter().enumerate() {
        let path = || format!("group_by[{index}]");
        let mut set_once = |part: &mut bool| {
            if std::mem::replace(part, true) {
                violations.push(path(), "is repeated");
            }
        };
        let bucket = match G::try_from(*group) {
            Ok(G::Status) => {
                set_once(&mut groups.status);
                continue;
            }
            Ok(G::Direction) => {
                set_once(&mut groups.direction);
                continue;
            }
            Ok(G::Staff) => {
                set_once(&mut groups.staff);
                continue;
            }
            Ok(G::Hour) => Bucket::Hour,
            Ok(G::Day) => Bucket::Day,
            Ok(G::Week) => Bucket::Week,
            Ok(G::Month) => Bucket::Month,
            Ok(G::Unspecified) => {
                violations.push(path(), "must not be unspecified");
                continue;
            }
            Err(_) => {
                violations.push(path(), format!("has the unknown value {group}"));
                continue;
            }
        };
        if groups.bucket.replace(bucket).is_some() {
            violations.push(path(), "must be the only one of HOUR, DAY, WEEK and MONTH");
        }
    }
    groups
}

fn row(group: Group) -> proto::VoiceCallStatsRow {
    let key = group.key;
    proto::VoiceCallStatsRow {
        key: Some(proto::VoiceCallStatsKey {
            status: key.status.map(|status| calls::status(&status).into()),
            direction: key
                .direction
                .map(|direction| calls::direction(&direction).into()),
            staff_uid: key.staff_uid.map(Identifier::into_string),
            bucket_start: key.bucket_start.map(calls::timestamp),
        }),
        count: group.count,
        handled_count: group.handled_count,
        total_duration_seconds: group.total_duration_seconds,
        mean_duration_seconds: group.mean_duration_seconds,
        mean_seconds_to_handle: group.mean_seconds_to_handle,
    }
}
