//! The names in a client certificate. Whether an authority that is trusted has signed it, the
//! handshake has verified.

use std::time::SystemTime;

use tokio_util::sync::CancellationToken;
use x509_cert::{
    der::{
        Any, Decode,
        asn1::{PrintableStringRef, Utf8StringRef},
        oid::db::rfc4519::COMMON_NAME,
    },
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use super::{
    Principal, Refusal, Scope,
    principal::{Rights, is_name},
    remembered,
};

/// As long as SPIFFE allows.
const MAX_NAME_BYTES: usize = 2048;

/// A client certificate, as far as it says who the client is.
#[derive(Debug, Clone)]
pub struct Certificate {
    fingerprint: remembered::Digest,
    /// Subject alternative names.
    uris: Vec<String>,
    dns_names: Vec<String>,
    /// Of the subject.
    common_name: Option<String>,
    expires_at: SystemTime,
}

/// The bytes are no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the certificate cannot be parsed")]
pub struct CertificateError;

impl Certificate {
    /// Reads the names from a certificate in DER.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let parsed = x509_cert::Certificate::from_der(der).map_err(|_| CertificateError)?;
        let parsed = parsed.tbs_certificate;
        let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
        let names = parsed
            .get::<SubjectAltName>()
            .map_err(|_| CertificateError)?;
        for name in names.into_iter().flat_map(|(_, names)| names.0) {
            match name {
                GeneralName::UniformResourceIdentifier(uri) => uris.push(uri.to_string()),
                GeneralName::DnsName(name) => dns_names.push(name.to_string().to_ascii_lowercase()),
                _ => {}
            }
        }
        let attributes = parsed.subject.0.iter().flat_map(|set| set.0.iter());
        let mut common_names = attributes.filter(|attribute| attribute.oid == COMMON_NAME);
        let common_name = common_names
            .next()
            .and_then(|attribute| text(&attribute.value));
        Ok(Self {
            fingerprint: remembered::digest(der),
            uris,
            dns_names,
            common_name,
            expires_at: parsed.validity.not_after.to_system_time(),
        })
    }

    /// When it expires.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    pub(super) fn fingerprint(&self) -> &remembered::Digest {
        &self.fingerprint
    }

    pub(super) fn uris(&self) -> &[String] {
        &self.uris
    }

    pub(super) fn dns_names(&self) -> &[String] {
        &self.dns_names
    }

    pub(super) fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// A principal with all scopes and for all calls, named by the first URI, DNS name or common
    /// name that there is.
    pub(super) fn principal(&self, now: SystemTime) -> Result<Principal, Refusal> {
        if self.expires_at <= now {
            return Err(Refusal::Expired);
        }
        let names = self.uris.iter().chain(&self.dns_names);
        let mut names = names.map(String::as_str).chain(self.common_name());
        let name = names.find(|name| !name.is_empty());
        let name = name.ok_or(Refusal::Invalid("the certificate has no name"))?;
        Ok(Principal::new(
            principal_name(name)?,
            Rights {
                scopes: Scope::ALL.into_iter().collect(),
                ..Rights::default()
            },
            Some(self.expires_at),
            CancellationToken::new(),
        ))
    }
}

/// The principal's name by this name of the certificate.
pub(super) fn principal_name(name: &str) -> Result<String, Refusal> {
    if !is_name(name, MAX_NAME_BYTES) {
        return Err(Refusal::Invalid(
            "the certificate's name has control characters, or more than 2048 bytes",
        ));
    }
    Ok(format!("cert:{name}"))
}

/// An attribute's text, in the encodings that certificates have today.
fn text(value: &Any) -> Option<String> {
    let utf8 = value
        .decode_as::<Utf8StringRef<'_>>()
        .map(|text| text.as_str().to_owned());
    let printable = || value.decode_as::<PrintableStringRef<'_>>();
    utf8.or_else(|_| printable().map(|text| text.as_str().to_owned()))
        .ok()
}
