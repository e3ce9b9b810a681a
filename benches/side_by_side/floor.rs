//! The floor: a bare tonic service. It responds to every request with one prepared call and
//! sends that to every watcher, without any logic or database.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures_util::{Stream, StreamExt};
use http::Request;
use prost::{Message, bytes::Bytes};
use tokio::sync::mpsc;
use tonic::{
    Status,
    body::Body,
    server::{Grpc, ServerStreamingService},
};
use voicecall::proto;

use crate::{
    Result,
    bare::{self, Answer, Raw, Routes},
    calls,
};

/// The most events that wait for one watcher; a writer waits when there are more.
const WAITING: usize = 1024;

/// Serves until the process is killed.
pub(crate) async fn serve() -> Result<()> {
    let floor = Floor {
        call: calls::value(),
        watchers: Arc::default(),
    };
    bare::serve(floor).await
}

#[derive(Clone)]
struct Floor {
    call: Bytes,
    watchers: Arc<Mutex<Vec<mpsc::Sender<Bytes>>>>,
}

/// Any response that has a call as its first field, with the call already encoded.
#[derive(Clone, PartialEq, Message)]
struct Prepared {
    #[prost(bytes = "bytes", tag = "1")]
    call: Bytes,
}

impl Routes for Floor {
    fn route(&self, method: &str, request: Request<Body>) -> Answer {
        let floor = self.clone();
        let answer = Prepared {
            call: self.call.clone(),
        };
        match method {
            "GetVoiceCall" => bare::unary(request, move |_: proto::GetVoiceCallRequest| {
                let answer = answer.clone();
                async { Ok(answer) }
            }),
            "CreateVoiceCall" => bare::unary(request, move |q: proto::CreateVoiceCallRequest| {
                let (floor, answer) = (floor.clone(), answer.clone());
                async move {
                    floor.publish(q.voice_call.as_slice()).await;
                    Ok(answer)
                }
            }),
            "BatchCreateVoiceCalls" => {
                bare::unary(request, move |q: proto::BatchCreateVoiceCallsRequest| {
                    let floor = floor.clone();
                    async move {
                        floor.publish(&q.voice_calls).await;
                        Ok(Prepared::default())
                    }
                })
            }
            "WatchVoiceCalls" => {
                Box::pin(async { Grpc::new(Raw).server_streaming(Watch(floor), request).await })
            }
            _ => bare::unimplemented(),
        }
    }
}

impl Floor {
    /// Sends each call to each watcher, in a message of its own.
    async fn publish(&self, calls: &[proto::VoiceCall]) {
        let watchers = self.watchers.lock().map(|w| w.clone());
        let watchers = watchers.unwrap_or_default();
        if watchers.is_empty() {
            return;
        }
        for call in calls {
            let event = event(call);
            for watcher in &watchers {
                // The watcher may have gone.
                let _ = watcher.send(event.clone()).await;
            }
        }
    }
}

/// An event like those of the service, in a message of its own.
fn event(call: &proto::VoiceCall) -> Bytes {
    let call = proto::VoiceCall {
        call_summary: call.call_summary.clone(),
        ..calls::stored()
    };
    let change = proto::VoiceCallChange {
        revision: call.revision,
        uid: call.uid.clone(),
        changed_at: call.updated_at,
        kind: proto::VoiceCallChangeKind::Created.into(),
        voice_call: Some(call),
        request_id: calls::request_id(),
        transaction_end: true,
        ..Default::default()
    };
    let event = proto::VoiceCallEvent {
        r#type: proto::VoiceCallEventType::Entered.into(),
        change: Some(change),
    };
    event.encode_to_vec().into()
}

struct Watch(Floor);

impl ServerStreamingService<Bytes> for Watch {
    type Response = Bytes;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
    type Future = std::future::Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: tonic::Request<Bytes>) -> Self::Future {
        let (sender, receiver) = mpsc::channel(WAITING);
        if let Ok(mut watchers) = self.0.watchers.lock() {
            watchers.retain(|watcher| !watcher.is_closed());
            watchers.push(sender);
        }
        let events = futures_util::stream::unfold(receiver, |mut receiver| async {
            Some((Ok(receiver.recv().await?), receiver))
        });
        std::future::ready(Ok(tonic::Response::new(events.boxed())))
    }
}
