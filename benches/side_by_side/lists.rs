//! The pages by which lists are measured: the first and the last of each kind.

use crate::load::Channel;
use voicecall::{
    api::tokens::{page_token, page_token::ListKey},
    domain::{
        Timestamp,
        list::{Order, OrderField, PageKey},
    },
    proto::{self, VoiceCallFilter, VoiceCallStatus, voice_call_service_client as client},
};

use crate::{Result, calls};

/// A kind of list.
#[derive(Clone, Copy)]
pub(crate) enum List {
    ByTime,
    ByStaff,
    ByClient,
    ByNumber,
    ToHandle,
    ByUpdate,
}

/// Calls on a page.
const PAGE: i32 = 100;

/// The number of different staff, clients or numbers in the requests.
const KEYS: u64 = 16;

/// Requests for the first or the last page of a kind of list, of different keys
/// where it has one.
pub(crate) async fn prepare(
    client: &mut client::VoiceCallServiceClient<Channel>,
    list: List,
    last_page: bool,
    calls: u64,
) -> Result<Vec<proto::ListVoiceCallsRequest>> {
    let mut requests = Vec::new();
    for _ in 0..KEYS {
        let mut request = first_page(list, rand::random_range(1..=calls));
        if last_page {
            request.page_token = token_of_last(client, &request).await?;
        }
        requests.push(request);
    }
    Ok(requests)
}

/// The latest calls of a member of staff.
pub(crate) fn of_staff(staff: String, page_size: i32) -> proto::ListVoiceCallsRequest {
    proto::ListVoiceCallsRequest {
        filter: Some(VoiceCallFilter {
            staff_uids: vec![staff],
            ..Default::default()
        }),
        page_size,
        ..Default::default()
    }
}

fn first_page(list: List, n: u64) -> proto::ListVoiceCallsRequest {
    let mut request = proto::ListVoiceCallsRequest {
        page_size: PAGE,
        ..Default::default()
    };
    let mut filter = VoiceCallFilter::default();
    match list {
        List::ByTime => {}
        List::ByUpdate => request.order_by = "updated_at desc".into(),
        List::ByStaff => filter.staff_uids.push(calls::staff(n)),
        List::ByClient => filter.client_uids.push(calls::client(n)),
        List::ByNumber => filter.numbers.push(calls::to_number(n)),
        List::ToHandle => {
            filter.statuses.push(VoiceCallStatus::Missed.into());
            filter.handled = Some(false);
        }
    }
    request.filter = Some(filter);
    request
}

/// The token of the last page, without reading all the pages before: it is made from the call
/// before the last page, which is found from the other end.
async fn token_of_last(
    client: &mut client::VoiceCallServiceClient<Channel>,
    request: &proto::ListVoiceCallsRequest,
) -> Result<String> {
    let order = if request.order_by.is_empty() {
        Order::DEFAULT
    } else {
        Order {
            field: OrderField::UpdatedAt,
            descending: true,
        }
    };
    let from_the_end = proto::ListVoiceCallsRequest {
        order_by: match order.field {
            OrderField::CreatedAt => "created_at".into(),
            OrderField::UpdatedAt => "updated_at".into(),
        },
        page_size: PAGE + 1,
        ..request.clone()
    };
    let found = client.list_voice_calls(from_the_end).await?.into_inner();
    let call = match found.voice_calls.get(PAGE.unsigned_abs() as usize) {
        Some(call) => call,
        // One page has it all.
        None => return Ok(String::new()),
    };
    let time = match order.field {
        OrderField::CreatedAt => call.created_at,
        OrderField::UpdatedAt => call.updated_at,
    };
    let time = time.ok_or("a call without a time")?;
    let micros = time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000;
    let key = PageKey {
        time: Timestamp::from_micros(micros).map_err(|_| "a call of another time")?,
        uid: call.uid.parse()?,
    };
    let list = ListKey::new(request.filter.as_ref(), order);
    Ok(page_token::encode(list, key))
}
