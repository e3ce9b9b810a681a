//! Writes as values, to be sent more than once. Each carries a request id.

use std::time::Duration;

use tonic::{Request, Status};
use voicecall::proto::{
    BatchCreateVoiceCallsRequest, CreateVoiceCallRequest, DeleteVoiceCallRequest,
    HandleVoiceCallRequest, PurgeVoiceCallRequest, UndeleteVoiceCallRequest,
    UpdateVoiceCallRequest, VoiceCall,
};

use super::{Client, request_id, with_token};

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
    /// Sends it, and returns the calls in the response.
    pub(crate) async fn send(self, client: &mut Client) -> Result<Vec<VoiceCall>, Status> {
        self.send_within(client, None).await
    }

    /// The same with a deadline, if any.
    pub(crate) async fn send_within(
        self,
        client: &mut Client,
        deadline: Option<Duration>,
    ) -> Result<Vec<VoiceCall>, Status> {
        let terms = Terms {
            deadline,
            token: None,
        };
        self.send_on(client, &terms).await
    }

    /// The same with a bearer token.
    pub(crate) async fn send_as(
        self,
        client: &mut Client,
        token: &str,
    ) -> Result<Vec<VoiceCall>, Status> {
        let terms = Terms {
            deadline: None,
            token: Some(token),
        };
        self.send_on(client, &terms).await
    }

    async fn send_on(
        self,
        client: &mut Client,
        terms: &Terms<'_>,
    ) -> Result<Vec<VoiceCall>, Status> {
        let one = |call: Option<VoiceCall>| call.into_iter().collect();
        Ok(match self {
            Self::Create(r) => {
                let response = client.create_voice_call(terms.request(r)).await?;
                one(response.into_inner().voice_call)
            }
            Self::BatchCreate(r) => {
                let response = client.batch_create_voice_calls(terms.request(r)).await?;
                response.into_inner().voice_calls
            }
            Self::Update(r) => {
                let response = client.update_voice_call(terms.request(r)).await?;
                one(response.into_inner().voice_call)
            }
            Self::Handle(r) => {
                let response = client.handle_voice_call(terms.request(r)).await?;
                one(response.into_inner().voice_call)
            }
            Self::Delete(r) => {
                let response = client.delete_voice_call(terms.request(r)).await?;
                one(response.into_inner().voice_call)
            }
            Self::Undelete(r) => {
                let response = client.undelete_voice_call(terms.request(r)).await?;
                one(response.into_inner().voice_call)
            }
            Self::Purge(r) => {
                client.purge_voice_call(terms.request(r)).await?;
                Vec::new()
            }
        })
    }

    /// Its name.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::BatchCreate(_) => "batch create",
            Self::Update(_) => "update",
            Self::Handle(_) => "handle",
            Self::Delete(_) => "delete",
            Self::Undelete(_) => "undelete",
            Self::Purge(_) => "purge",
        }
    }

    /// The uid of the one call that it changes; creates make new ones.
    pub(crate) fn uid(&self) -> Option<&str> {
        match self {
            Self::Create(_) | Self::BatchCreate(_) => None,
            Self::Update(r) => r.voice_call.as_ref().map(|call| call.uid.as_str()),
            Self::Handle(r) => Some(&r.uid),
            Self::Delete(r) => Some(&r.uid),
            Self::Undelete(r) => Some(&r.uid),
            Self::Purge(r) => Some(&r.uid),
        }
    }
}

/// What a request carries beside its message.
struct Terms<'a> {
    deadline: Option<Duration>,
    token: Option<&'a str>,
}

impl Terms<'_> {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = match self.token {
            Some(token) => with_token(message, token),
            None => Request::new(message),
        };
        if let Some(deadline) = self.deadline {
            request.set_timeout(deadline);
        }
        request
    }
}

/// A request with a deadline, if any.
pub(crate) fn within<T>(message: T, deadline: Option<Duration>) -> Request<T> {
    let terms = Terms {
        deadline,
        token: None,
    };
    terms.request(message)
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
