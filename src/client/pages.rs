//! Lists and statistics as streams: a page is requested when the previous one is used up.

use futures_util::{
    TryStreamExt,
    stream::{self, Stream},
};

use super::{Client, Error};
use crate::proto::{
    GetVoiceCallStatsRequest, GetVoiceCallStatsResponse, ListVoiceCallsRequest,
    ListVoiceCallsResponse, VoiceCall,
};

impl Client {
    /// All calls from the request's page on, in its order. A page is requested when the
    /// previous one is used up, so nothing is fetched that is not read. The deadline applies to
    /// each page. After an error the stream ends.
    pub fn list(
        &self,
        request: ListVoiceCallsRequest,
    ) -> impl Stream<Item = Result<VoiceCall, Error>> + Send + use<> {
        self.pages(request)
            .map_ok(|page| stream::iter(page.voice_calls.into_iter().map(Ok)))
            .try_flatten()
    }

    /// The same in pages, with the revision at which each was read.
    pub fn pages(
        &self,
        request: ListVoiceCallsRequest,
    ) -> impl Stream<Item = Result<ListVoiceCallsResponse, Error>> + Send + use<> {
        let client = self.clone();
        stream::try_unfold(Some(request), move |next| {
            let client = client.clone();
            async move {
                let Some(mut request) = next else {
                    return Ok(None);
                };
                let page = client.list_page(request.clone()).await?;
                request.page_token.clone_from(&page.next_page_token);
                let more = !request.page_token.is_empty();
                Ok(Some((page, more.then_some(request))))
            }
        })
    }

    /// Statistics in pages, from the request's page on. Each page is computed when it is
    /// requested, at its own revision.
    pub fn stats(
        &self,
        request: GetVoiceCallStatsRequest,
    ) -> impl Stream<Item = Result<GetVoiceCallStatsResponse, Error>> + Send + use<> {
        let client = self.clone();
        stream::try_unfold(Some(request), move |next| {
            let client = client.clone();
            async move {
                let Some(mut request) = next else {
                    return Ok(None);
                };
                let page = client.stats_page(request.clone()).await?;
                request.page_token.clone_from(&page.next_page_token);
                let more = !request.page_token.is_empty();
                Ok(Some((page, more.then_some(request))))
            }
        })
    }
}
