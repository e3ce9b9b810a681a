//! Exports as streams.

use std::time::Duration;

use futures_util::{
    TryStreamExt,
    stream::{self, Stream},
};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Streaming;

use super::{Client, Error, retry};
use crate::proto::{ExportVoiceCallsRequest, ExportVoiceCallsResponse, VoiceCall};

impl Client {
    /// All calls that match, as they are at one revision, ordered by `created_at`. The
    /// deadline applies to each chunk. After an error the stream ends, and its calls are
    /// incomplete; start again.
    pub fn export(
        &self,
        request: ExportVoiceCallsRequest,
    ) -> impl Stream<Item = Result<VoiceCall, Error>> + Send + use<> {
        self.export_chunks(request)
            .map_ok(|chunk| stream::iter(chunk.voice_calls.into_iter().map(Ok)))
            .try_flatten()
    }

    /// The same in chunks, with the revision.
    pub fn export_chunks(
        &self,
        request: ExportVoiceCallsRequest,
    ) -> impl Stream<Item = Result<ExportVoiceCallsResponse, Error>> + Send + use<> {
        let client = self.clone();
        stream::try_unfold(None, move |open| {
            let (client, request) = (client.clone(), request.clone());
            async move {
                let (chunk, stream) = match open {
                    None => client.first_chunk(request).await?,
                    Some(mut stream) => (client.chunk(&mut stream).await?, stream),
                };
                Ok(chunk.map(|chunk| (chunk, Some(stream))))
            }
        })
    }

    /// Retries until there is a first chunk: so far the caller has seen nothing of the export.
    /// It can be started again then, also with another token, and later it cannot.
    async fn first_chunk(
        &self,
        message: ExportVoiceCallsRequest,
    ) -> Result<
        (
            Option<ExportVoiceCallsResponse>,
            Streaming<ExportVoiceCallsResponse>,
        ),
        Error,
    > {
        let deadline = Instant::now() + self.deadline;
        let mut attempts = 0;
        let mut is_renewed = false;
        loop {
            let bearer = self.token(deadline).await?;
            let request = self.request(message.clone(), attempts, None, bearer.as_ref());
            attempts += 1;
            let mut stub = self.stub.clone();
            let begin = async {
                let opened = stub.export_voice_calls(request).await;
                let mut stream = opened.map_err(|status| self.error(&status))?.into_inner();
                Ok((self.chunk(&mut stream).await?, stream))
            };
            let error = match timeout_at(deadline, begin).await {
                Ok(Ok(begun)) => return Ok(begun),
                Ok(Err(error)) => error,
                Err(_) => Error::deadline_exceeded(),
            };
            let error: Error = error.with_attempts(attempts, self.deadline, None);
            if error.refuses_token() && !is_renewed {
                is_renewed = true;
                self.renew(bearer.as_ref(), deadline, error).await?;
                continue;
            }
            match retry::delay(&error, attempts) {
                Some(delay) if Instant::now() + delay < deadline => sleep(delay).await,
                _ => return Err(error),
            }
        }
    }

    async fn chunk(
        &self,
        stream: &mut Streaming<ExportVoiceCallsResponse>,
    ) -> Result<Option<ExportVoiceCallsResponse>, Error> {
        let deadline: Duration = self.deadline;
        match tokio::time::timeout(deadline, stream.message()).await {
            Ok(chunk) => chunk.map_err(|status| self.error(&status)),
            Err(_) => Err(Error::deadline_exceeded().with_attempts(1, deadline, None)),
        }
    }
}
