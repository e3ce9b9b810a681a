//! The writes. Each carries a request id, which makes it safe to send again.

use uuid::Uuid;

use super::{Client, Error, Stub, answered};
use crate::api::proto::{
    BatchCreateVoiceCallsRequest, CreateVoiceCallRequest, DeleteVoiceCallRequest,
    HandleVoiceCallRequest, UndeleteVoiceCallRequest, UpdateVoiceCallRequest, VoiceCall,
};

impl Client {
    /// Records a new call, and answers it as recorded.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn create(&self, mut request: CreateVoiceCallRequest) -> Result<VoiceCall, Error> {
        protect(&mut request.request_id);
        let send = async |mut stub: Stub, request| stub.create_voice_call(request).await;
        answered(self.call(request, send).await?.voice_call)
    }

    /// Records several new calls, all or none, and answers them in order.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn batch_create(
        &self,
        mut request: BatchCreateVoiceCallsRequest,
    ) -> Result<Vec<VoiceCall>, Error> {
        protect(&mut request.request_id);
        let send = async |mut stub: Stub, request| stub.batch_create_voice_calls(request).await;
        Ok(self.call(request, send).await?.voice_calls)
    }

    /// Corrects a call, and answers it as it is then.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn update(&self, mut request: UpdateVoiceCallRequest) -> Result<VoiceCall, Error> {
        protect(&mut request.request_id);
        let send = async |mut stub: Stub, request| stub.update_voice_call(request).await;
        answered(self.call(request, send).await?.voice_call)
    }

    /// Marks a call as handled, and answers it as it is then.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn handle(&self, mut request: HandleVoiceCallRequest) -> Result<VoiceCall, Error> {
        protect(&mut request.request_id);
        let send = async |mut stub: Stub, request| stub.handle_voice_call(request).await;
        answered(self.call(request, send).await?.voice_call)
    }

    /// Deletes a call softly, and answers it as it is then; `None` when there is
    /// no such call and `allow_missing` was set.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete(
        &self,
        mut request: DeleteVoiceCallRequest,
    ) -> Result<Option<VoiceCall>, Error> {
        protect(&mut request.request_id);
        let send = async |mut stub: Stub, request| stub.delete_voice_call(request).await;
        Ok(self.call(request, send).await?.voice_call)
    }

    /// Restores a deleted call, and answers it as it is then.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn undelete(
        &self,
        mut request: UndeleteVoiceCallRequest,
    ) -> Result<VoiceCall, Error> {
        protect(&mut request.request_id);
        let send = async |mut stub: Stub, request| stub.undelete_voice_call(request).await;
        answered(self.call(request, send).await?.voice_call)
    }
}

/// Makes a write safe to send again.
fn protect(request_id: &mut String) {
    if request_id.is_empty() {
        *request_id = Uuid::new_v4().to_string();
    }
}
