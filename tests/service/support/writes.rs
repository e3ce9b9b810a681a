//! Writes as values, to be sent more than once. Each carries a request id.

use tonic::Status;
use voicecall::api::proto::{
    BatchCreateVoiceCallsRequest, CreateVoiceCallRequest, DeleteVoiceCallRequest,
    HandleVoiceCallRequest, PurgeVoiceCallRequest, UndeleteVoiceCallRequest,
    UpdateVoiceCallRequest, VoiceCall,
};

use super::{Client, request_id};

/// A write of any kind, to be sent more than once.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    Create(CreateVoiceCallRequest),
    BatchCreate(BatchCreateVoiceCallsRequest),
    Update(UpdateVoiceCallRequest),
    Handle(HandleVoiceCallRequest),
    Delete(DeleteVoiceCallRequest),
    Undelete(UndeleteVoiceCallRequest),
    Purge(PurgeVoiceCallRequest),
}

impl Write {
    /// Sends it, and answers the calls in the answer.
    pub(crate) async fn send(self, client: &mut Client) -> Result<Vec<VoiceCall>, Status> {
        let one = |call: Option<VoiceCall>| call.into_iter().collect();
        Ok(match self {
            Self::Create(r) => one(client.create_voice_call(r).await?.into_inner().voice_call),
            Self::BatchCreate(r) => {
                let response = client.batch_create_voice_calls(r).await?;
                response.into_inner().voice_calls
            }
            Self::Update(r) => one(client.update_voice_call(r).await?.into_inner().voice_call),
            Self::Handle(r) => one(client.handle_voice_call(r).await?.into_inner().voice_call),
            Self::Delete(r) => one(client.delete_voice_call(r).await?.into_inner().voice_call),
            Self::Undelete(r) => one(client.undelete_voice_call(r).await?.into_inner().voice_call),
            Self::Purge(r) => {
                client.purge_voice_call(r).await?;
                Vec::new()
            }
        })
    }
}

pub(crate) fn create_of(voice_call: VoiceCall) -> Write {
    Write::Create(CreateVoiceCallRequest {
        voice_call: Some(voice_call),
        request_id: request_id(),
        ..Default::default()
    })
}

pub(crate) fn update_of(voice_call: VoiceCall) -> Write {
    Write::Update(UpdateVoiceCallRequest {
        voice_call: Some(voice_call),
        request_id: request_id(),
        ..Default::default()
    })
}

pub(crate) fn handle_of(uid: &str, staff: &str) -> Write {
    Write::Handle(HandleVoiceCallRequest {
        uid: uid.into(),
        handled_by_staff_uid: staff.into(),
        request_id: request_id(),
        ..Default::default()
    })
}

pub(crate) fn delete_of(uid: &str, allow_missing: bool) -> Write {
    Write::Delete(DeleteVoiceCallRequest {
        uid: uid.into(),
        request_id: request_id(),
        allow_missing,
        ..Default::default()
    })
}

pub(crate) fn undelete_of(uid: &str) -> Write {
    Write::Undelete(UndeleteVoiceCallRequest {
        uid: uid.into(),
        request_id: request_id(),
        ..Default::default()
    })
}

pub(crate) fn purge_of(uid: &str) -> Write {
    Write::Purge(PurgeVoiceCallRequest {
        uid: uid.into(),
        request_id: request_id(),
    })
}

pub(crate) fn batch_of(voice_calls: Vec<VoiceCall>) -> Write {
    Write::BatchCreate(BatchCreateVoiceCallsRequest {
        voice_calls,
        request_id: request_id(),
    })
}
