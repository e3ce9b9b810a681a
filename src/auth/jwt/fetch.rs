//! Fetches the keys of an identity provider by https.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::time::timeout;

/// How long it may take in all.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Key sets have a few kilobytes.
const MAX_BYTES: usize = 1024 * 1024;
const USER_AGENT: &str = concat!("voicecall/", env!("CARGO_PKG_VERSION"));

/// The URL cannot be fetched from.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the URL of a key set must begin with https:// and name a host")]
pub struct InvalidUrl;

/// Fetches one URL.
pub(super) struct Fetcher {
    url: Uri,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl Fetcher {
    pub(super) fn new(url: &str) -> Result<Self, InvalidUrl> {
        let url: Uri = url.parse().map_err(|_| InvalidUrl)?;
        if url.scheme_str() != Some("https") || url.host().is_none() {
            return Err(InvalidUrl);
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the cipher suites of TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
        let connector = connector.https_only().enable_http1().build();
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self { url, client })
    }

    /// The content; an error is a message for the operator.
    pub(super) async fn fetch(&self) -> Result<Bytes, String> {
        match timeout(TIMEOUT, self.get()).await {
            Ok(fetched) => fetched,
            Err(_) => Err(format!("it took longer than {} s", TIMEOUT.as_secs())),
        }
    }

    async fn get(&self) -> Result<Bytes, String> {
        let request = Request::get(&self.url)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, USER_AGENT)
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let response = self.client.request(request).await;
        let response = response.map_err(|error| with_causes(&error))?;
        if response.status() != StatusCode::OK {
            return Err(format!("the response has status {}", response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_BYTES)
            .collect()
            .await;
        let body = body.map_err(|error| with_causes(&*error))?;
        Ok(body.to_bytes())
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_is_fetched() {
        for url in [
            "http://a/keys",
            "file:///keys",
            "/keys",
            "https://",
            "",
            "a b",
        ] {
            assert!(Fetcher::new(url).is_err(), "{url:?}");
        }
        assert!(Fetcher::new("https://login.example.com/keys").is_ok());
    }
}
