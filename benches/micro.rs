//! Micro benchmarks of the code on the path of every request or event: the state machine, the
//! filter, and the encoding of a call. `cargo bench --bench micro`.

use std::{error::Error, hint::black_box};

use criterion::Criterion;
use prost::Message;
use voicecall::{
    domain::{
        Attributes, Call, Command, Direction, Draft, Filter, Identifier, Patch, PendingTime,
        PhoneNumber, Seconds, Status, Summary, Timestamp, Url, Uuid, command::WhenMissing, machine,
    },
    proto,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const UID: Uuid = Uuid::from_u128(0x0198_8d5b_7a3e_7000_8000_0000_0000_0001);

fn call() -> Result<Call> {
    let text = |text: &str| text.to_owned();
    Ok(Call {
        uid: UID,
        created_at: Timestamp::from_micros(1_700_000_000_000_000)?,
        updated_at: Timestamp::from_micros(1_700_000_000_000_000)?,
        deleted_at: None,
        attributes: Attributes {
            duration: Seconds::new(120),
            status: Status::AnsweredByStaff,
            direction: Direction::Inbound,
            staff_uid: Some(Identifier::new(text("5ya4gbwm2c3qic8"))?),
            client_uid: Some(Identifier::new(text("9k2lmn4pq7rs1tu"))?),
            from_number: Some(PhoneNumber::new(text("+14155550148"))?),
            to_number: Some(PhoneNumber::new(text("+16285550163"))?),
            recording_url: Some(Url::new(text("https://example.com/recording.mp3"))?),
            call_summary: Some(Summary::new(text("Client asked about their balance"))?),
            external_app_url: Some(Url::new(text("https://example.com/call-details"))?),
            handled_by_staff_uid: None,
            handled_at: None,
        },
        revision: 1,
    })
}

fn message() -> proto::VoiceCall {
    let time = prost_types::Timestamp {
        seconds: 1_700_000_000,
        nanos: 0,
    };
    proto::VoiceCall {
        uid: UID.to_string(),
        duration: Some(120),
        created_at: Some(time),
        updated_at: Some(time),
        status: proto::VoiceCallStatus::AnsweredByStaff.into(),
        direction: proto::VoiceCallDirection::Inbound.into(),
        staff_uid: Some("5ya4gbwm2c3qic8".into()),
        client_uid: Some("9k2lmn4pq7rs1tu".into()),
        from_number: Some("+14155550148".into()),
        to_number: Some("+16285550163".into()),
        recording_url: Some("https://example.com/recording.mp3".into()),
        call_summary: Some("Client asked about their balance".into()),
        external_app_url: Some("https://example.com/call-details".into()),
        revision: 1,
        ..Default::default()
    }
}

fn state_machine(criterion: &mut Criterion) -> Result<()> {
    let call = call()?;
    let create = Command::Create(Draft {
        uid: UID,
        created_at: PendingTime::AtCommit,
        attributes: call.attributes.clone(),
    });
    let update = Command::Update {
        uid: UID,
        patch: Patch {
            status: Some(Status::Missed),
            ..Patch::default()
        },
        expected_revision: Some(1),
        when_missing: WhenMissing::Refuse,
    };
    criterion.bench_function("state machine: create", |bencher| {
        bencher.iter(|| machine::apply(None, black_box(&create), None));
    });
    criterion.bench_function("state machine: update of status", |bencher| {
        bencher.iter(|| machine::apply(Some(black_box(&call)), black_box(&update), None));
    });
    Ok(())
}

fn filter(criterion: &mut Criterion) -> Result<()> {
    let call = call()?;
    let staff = |count: u32| -> Result<Filter> {
        let names = (1..count).map(|n| Identifier::new(format!("staff-{n}")));
        let mut staff_uids = names.collect::<std::result::Result<Vec<_>, _>>()?;
        // The one that is met comes last.
        staff_uids.extend(call.attributes.staff_uid.clone());
        Ok(Filter {
            staff_uids,
            handled: Some(false),
            ..Filter::default()
        })
    };
    for (name, filter) in [
        ("everything", Filter::default()),
        ("one of staff", staff(1)?),
        ("one of 100 of staff", staff(100)?),
    ] {
        criterion.bench_function(&format!("filter: {name}"), |bencher| {
            bencher.iter(|| black_box(&filter).matches(black_box(&call)));
        });
    }
    Ok(())
}

fn encoding(criterion: &mut Criterion) -> Result<()> {
    let message = message();
    let bytes = message.encode_to_vec();
    let mut buffer = Vec::with_capacity(bytes.len());
    criterion.bench_function("call: encode", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            black_box(&message).encode(&mut buffer)
        });
    });
    criterion.bench_function("call: decode", |bencher| {
        bencher.iter(|| proto::VoiceCall::decode(black_box(&bytes[..])));
    });
    Ok(())
}

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    state_machine(&mut criterion)?;
    filter(&mut criterion)?;
    encoding(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
