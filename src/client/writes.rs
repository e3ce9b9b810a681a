//! The writes. Each carries a request id, which makes it safe to retry.

use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Client, Error, Stub, required_call};
use crate::proto::{
    BatchCreateVoiceCallsRequest, CreateVoiceCallRequest, DeleteVoiceCallRequest,
    HandleVoiceCallRequest, PurgeVoiceCallRequest, UndeleteVoiceCallRequest,
    UpdateVoiceCallRequest, VoiceCall,
};

impl Client {
    async fn write<M: Clone, R>(
        &self,
        request_id: String,
        message: M,
        send: impl AsyncFn(Stub, Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<R, Error> {
        let response = self.call(message, send).await;
        response.map_err(|mut error| {
            error.details.request_id = Some(request_id);
            error
        })
    }

    /// Creates a call, and returns it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn create(&self, mut request: CreateVoiceCallRequest) -> Result<VoiceCall, Error> {
        let id = ensure_request_id(&mut request.request_id);
        let send = async |mut stub: Stub, request| stub.create_voice_call(request).await;
        required_call(self.write(id, request, send).await?.voice_call)
    }

    /// Creates several calls, all or none, and returns them in order.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn batch_create(
        &self,
        mut request: BatchCreateVoiceCallsRequest,
    ) -> Result<Vec<VoiceCall>, Error> {
        let id = ensure_request_id(&mut request.request_id);
        let send = async |mut stub: Stub, request| stub.batch_create_voice_calls(request).await;
        Ok(self.write(id, request, send).await?.voice_calls)
    }

    /// Updates a call, and returns it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn update(&self, mut request: UpdateVoiceCallRequest) -> Result<VoiceCall, Error> {
        let id = ensure_request_id(&mut request.request_id);
        let send = async |mut stub: Stub, request| stub.update_voice_call(request).await;
        required_call(self.write(id, request, send).await?.voice_call)
    }

    /// Marks a call as handled, and returns it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn handle(&self, mut request: HandleVoiceCallRequest) -> Result<VoiceCall, Error> {
        let id = ensure_request_id(&mut request.request_id);
        let send = async |mut stub: Stub, request| stub.handle_voice_call(request).await;
        required_call(self.write(id, request, send).await?.voice_call)
    }

    /// Deletes a call softly, and returns it; `None` if there is no such call and
    /// `allow_missing` was set.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete(
        &self,
        mut request: DeleteVoiceCallRequest,
    ) -> Result<Option<VoiceCall>, Error> {
        let id = ensure_request_id(&mut request.request_id);
        let send = async |mut stub: Stub, request| stub.delete_voice_call(request).await;
        Ok(self.write(id, request, send).await?.voice_call)
    }

    /// Restores a deleted call, and returns it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn undelete(
        &self,
        mut request: UndeleteVoiceCallRequest,
    ) -> Result<VoiceCall, Error> {
        let id = ensure_request_id(&mut request.request_id);
        let send = async |mut stub: Stub, request| stub.undelete_voice_call(request).await;
        required_call(self.write(id, request, send).await?.voice_call)
    }

    /// Erases a call permanently, and returns the revision of the purge.
    ///
    /// # Errors
    /// [`Error`]; `NOT_FOUND` when there is none.
    pub async fn purge(&self, mut request: PurgeVoiceCallRequest) -> Result<i64, Error> {
        ensure_request_id(&mut request.request_id);
        let send = async |mut stub: Stub, request| stub.purge_voice_call(request).await;
        Ok(self.call(request, send).await?.revision)
    }
}

/// Generates a request id if there is none, and returns the request id.
fn ensure_request_id(request_id: &mut String) -> String {
    if request_id.is_empty() {
        *request_id = Uuid::new_v4().to_string();
    }
    request_id.clone()
}
