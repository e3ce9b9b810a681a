//! How large a request may be, and how much it holds once it is decoded.
//!
//! A list of empty items is two bytes on the wire for each, and hundreds in memory, and four
//! megabytes of them are four kilobytes if they are compressed. So the items of each list are
//! counted before anything is decoded. Which fields are lists is read from the descriptors, so
//! that no request is forgotten.

use std::{
    collections::HashMap,
    mem::size_of,
    sync::{Arc, LazyLock},
};

use bytes::Buf;
use prost::{
    Message, Name,
    encoding::{WireType, decode_key, decode_varint},
};
use prost_types::{
    DescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{DESCRIPTORS, ErrorReason, VoiceCall, codec::details};

/// The most items that any RPC accepts in a list.
const MAX_ITEMS: usize = 1000;
/// With more than this a request is not decoded. In between, the RPC itself refuses it, together
/// with all else that is wrong with it.
const MAX_DECODED_ITEMS: usize = 1100;
/// The most bytes of a request without lists: more than three times the largest call.
const MAX_BYTES: usize = 256 * 1024;
/// The same with lists of texts and numbers: a filter with 1000 of the longest texts in each of
/// its lists is smaller.
const MAX_BYTES_WITH_LISTS: usize = 2 * 1024 * 1024;

/// What counts the bytes that a request holds.
pub(crate) trait HeldBytes: Send + Sync {
    /// Says that the request holds this many bytes in all.
    ///
    /// # Errors
    /// There is no room for them.
    fn hold(&self, bytes: usize) -> Result<(), Status>;
}

tokio::task_local! {
    /// Counts what is decoded in this task.
    pub(crate) static HELD_BYTES: Arc<dyn HeldBytes>;
}

/// Checks the encoded request `U`, and counts it as it arrived and as it will be decoded. Any
/// other message is passed.
pub(super) fn check<U: Name>(bytes: &[u8]) -> Result<(), Status> {
    let Some(request) = REQUESTS.get(U::NAME) else {
        return Ok(());
    };
    if bytes.len() > request.max_bytes {
        return Err(too_large());
    }
    // Most requests have none, and then nothing is allocated.
    let mut counts = vec![0; request.lists.len()];
    count(bytes, &request.fields, &mut counts);
    let mut held = bytes.len() * 2;
    for (list, items) in request.lists.iter().zip(counts) {
        if items > MAX_DECODED_ITEMS {
            return Err(too_many(&list.path, items));
        }
        held += items * list.item_bytes;
    }
    HELD_BYTES
        .try_with(|counter| counter.hold(held))
        .unwrap_or(Ok(()))
}

/// What is known of a request.
#[derive(Debug)]
struct Request {
    max_bytes: usize,
    fields: Vec<Field>,
    lists: Vec<List>,
}

/// A field that is a list, or a message with lists.
#[derive(Debug)]
struct Field {
    number: u32,
    /// The index of the list, if it is one.
    list: Option<usize>,
    /// Whether one field of the wire may hold many items.
    is_packed: bool,
    /// The same of the message that it holds.
    fields: Vec<Field>,
}

#[derive(Debug)]
struct List {
    path: String,
    /// What an item takes in memory, besides its own bytes.
    item_bytes: usize,
}

/// All requests, by the names of their messages.
static REQUESTS: LazyLock<HashMap<String, Request>> = LazyLock::new(|| {
    // Reflection has read them before, or the server has not started.
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default();
    let messages: HashMap<String, &DescriptorProto> = files
        .file
        .iter()
        .flat_map(|file| {
            let named = |it: &DescriptorProto| format!(".{}.{}", file.package(), it.name());
            let messages = file.message_type.iter();
            messages.map(move |message| (named(message), message))
        })
        .collect();
    let services = files.file.iter().flat_map(|file| &file.service);
    services
        .flat_map(|service| &service.method)
        .filter_map(|method| {
            let message = messages.get(method.input_type())?;
            let mut lists = Vec::new();
            let fields = fields(message, "", &messages, &mut lists);
            // A message of a stream is refused alone, with all else that is wrong with it.
            let has_calls = lists
                .iter()
                .any(|it| it.item_bytes >= size_of::<VoiceCall>());
            let max_bytes = match () {
                () if has_calls || method.client_streaming() => usize::MAX,
                () if lists.is_empty() => MAX_BYTES,
                () => MAX_BYTES_WITH_LISTS,
            };
            let request = Request {
                max_bytes,
                fields,
                lists,
            };
            Some((message.name().to_owned(), request))
        })
        .collect()
});

fn fields(
    message: &DescriptorProto,
    path: &str,
    messages: &HashMap<String, &DescriptorProto>,
    lists: &mut Vec<List>,
) -> Vec<Field> {
    let fields = message.field.iter().filter_map(|field| {
        let path = format!("{path}{}", field.name());
        let list = (field.label() == Label::Repeated).then(|| {
            let item_bytes = match field.r#type() {
                Type::Message => size_of::<VoiceCall>(),
                _ => size_of::<String>(),
            };
            lists.push(List {
                path: path.clone(),
                item_bytes,
            });
            lists.len() - 1
        });
        let inner = messages.get(field.type_name());
        let inner = inner.map(|inner| fields(inner, &format!("{path}."), messages, lists));
        let inner = inner.unwrap_or_default();
        (list.is_some() || !inner.is_empty()).then(|| Field {
            number: field.number().unsigned_abs(),
            list,
            is_packed: !matches!(field.r#type(), Type::Message | Type::String | Type::Bytes),
            fields: inner,
        })
    });
    fields.collect()
}

/// Counts the items of each list. What cannot be decoded ends the count, and will end the
/// decoding at the same place.
fn count(mut bytes: &[u8], fields: &[Field], counts: &mut [usize]) {
    if fields.is_empty() {
        return;
    }
    while let Ok((number, wire_type)) = decode_key(&mut bytes) {
        let field = fields.iter().find(|field| field.number == number);
        let len = match wire_type {
            WireType::Varint => match decode_varint(&mut bytes) {
                Ok(_) => 0,
                Err(_) => return,
            },
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => match decode_varint(&mut bytes) {
                Ok(len) => usize::try_from(len).unwrap_or(usize::MAX),
                Err(_) => return,
            },
            // No message has groups: what is in one is counted as if it were not.
            WireType::StartGroup | WireType::EndGroup => continue,
        };
        let Some((value, _)) = bytes.split_at_checked(len) else {
            return;
        };
        if let Some(field) = field {
            if let Some(list) = field.list {
                let is_packed = field.is_packed && wire_type == WireType::LengthDelimited;
                // The last byte of each number is less than 128.
                counts[list] += match is_packed {
                    true => value.iter().filter(|byte| byte.is_ascii()).count(),
                    false => 1,
                };
            }
            count(value, &field.fields, counts);
        }
        bytes.advance(len);
    }
}

fn too_large() -> Status {
    Status::with_error_details(
        Code::ResourceExhausted,
        "the request is larger than this method accepts",
        details(ErrorReason::MessageTooLarge),
    )
}

fn too_many(path: &str, items: usize) -> Status {
    let what = format!("must have at most {MAX_ITEMS} items, not {items}");
    let message = format!("{path} {what}");
    let mut details = details(ErrorReason::InvalidField);
    details.add_bad_request_violation(path, what);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{
        BatchCreateVoiceCallsRequest, GetVoiceCallRequest, ListVoiceCallsRequest, VoiceCallFilter,
    };

    #[test]
    fn lists_are_found_wherever_they_are() {
        let paths = |name: &str| -> Vec<&str> {
            let lists = REQUESTS[name].lists.iter();
            lists.map(|list| list.path.as_str()).collect()
        };
        assert_eq!(paths("BatchCreateVoiceCallsRequest"), ["voice_calls"]);
        assert_eq!(paths("BatchGetVoiceCallsRequest"), ["uids"]);
        assert_eq!(paths("UpdateVoiceCallRequest"), ["update_mask.paths"]);
        assert!(paths("GetVoiceCallRequest").is_empty());
        let filters = [
            "ListVoiceCallsRequest",
            "WatchVoiceCallsRequest",
            "ExportVoiceCallsRequest",
            "GetVoiceCallStatsRequest",
        ];
        for name in filters {
            assert!(paths(name).contains(&"filter.statuses"), "{name}");
            assert!(paths(name).contains(&"filter.to_numbers"), "{name}");
        }
    }

    #[test]
    fn limits_follow_from_what_a_request_may_have() {
        let limit = |name: &str| REQUESTS[name].max_bytes;
        assert_eq!(limit(GetVoiceCallRequest::NAME), MAX_BYTES);
        assert_eq!(limit("CreateVoiceCallRequest"), MAX_BYTES);
        assert_eq!(limit(ListVoiceCallsRequest::NAME), MAX_BYTES_WITH_LISTS);
        assert_eq!(limit(BatchCreateVoiceCallsRequest::NAME), usize::MAX);
        assert_eq!(limit("ImportVoiceCallsRequest"), usize::MAX);
        let text = || vec!["\u{10348}".repeat(64); MAX_ITEMS];
        let largest = ListVoiceCallsRequest {
            filter: Some(VoiceCallFilter {
                uids: vec!["01a21d77-e38e-71f6-ab74-053c687b7972".to_owned(); MAX_ITEMS],
                staff_uids: text(),
                client_uids: text(),
                handled_by_staff_uids: text(),
                numbers: text(),
                from_numbers: text(),
                to_numbers: text(),
                statuses: vec![1; MAX_ITEMS],
                directions: vec![1; MAX_ITEMS],
                ..VoiceCallFilter::default()
            }),
            ..ListVoiceCallsRequest::default()
        };
        let bytes = largest.encode_to_vec();
        check::<ListVoiceCallsRequest>(&bytes).expect("it is within the limits");
    }

    #[test]
    fn items_count_in_all_parts_of_a_field_that_is_sent_in_parts() {
        let part = ListVoiceCallsRequest {
            filter: Some(VoiceCallFilter {
                statuses: vec![1; MAX_ITEMS],
                ..VoiceCallFilter::default()
            }),
            ..ListVoiceCallsRequest::default()
        };
        let part = part.encode_to_vec();
        check::<ListVoiceCallsRequest>(&part).expect("it is within the limits");
        let refused = check::<ListVoiceCallsRequest>(&part.repeat(2));
        let message = "filter.statuses must have at most 1000 items, not 2000";
        assert_eq!(refused.expect_err("too many").message(), message);
        // A group, which is skipped when it is decoded, hides nothing.
        let hidden = [&[0xa3, 0x06], &*part.repeat(2)].concat();
        assert!(check::<ListVoiceCallsRequest>(&hidden).is_err());
    }
}
