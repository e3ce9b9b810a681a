//! Who may call what: the credentials that a request needs, and the scope for each RPC. Which calls
//! a caller may see and change, the handlers ask of its narrowing.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use tonic::body::Body;

use super::{context::Connection, error::Error};
use crate::auth::{Authenticator, Credentials, Principal, Refusal, Scope};

/// The path of an RPC of the call service, before its name.
pub(super) const CALL_SERVICE: &str = "/voicecall.v1.VoiceCallService/";
/// Probes have no credentials.
const HEALTH_SERVICE: &str = "/grpc.health.v1.Health/";

/// What callers have to prove.
#[derive(Clone, Default)]
pub struct Access {
    /// Finds out who is calling; `None`: everybody may do everything.
    pub authenticator: Option<Arc<Authenticator>>,
    /// Whether anybody may use reflection.
    pub open_reflection: bool,
}

impl Access {
    /// Who is calling, if they may make this request; `None` if nobody is asked.
    pub(super) fn allow(
        &self,
        request: &http::Request<Body>,
    ) -> Result<Option<Arc<Principal>>, Error> {
        let Some(authenticator) = &self.authenticator else {
            return Ok(None);
        };
        let method = request.uri().path();
        let rpc = method.strip_prefix(CALL_SERVICE);
        let is_open = rpc.is_none() && (self.open_reflection || method.starts_with(HEALTH_SERVICE));
        if is_open {
            return Ok(None);
        }
        let connection = request.extensions().get::<Arc<Connection>>();
        let mut headers = request.headers().get_all(AUTHORIZATION).iter();
        let mut header = || headers.next().map(|value| value.as_bytes());
        let principal = authenticator
            .authenticate(Credentials {
                authorization: [header(), header()],
                certificate: connection.and_then(|connection| connection.certificate()),
            })
            .map_err(Error::Unauthenticated)?;
        if let Some(rpc) = rpc {
            let scope = scope_of(rpc).ok_or(Error::UnknownMethod)?;
            if !principal.scopes().has(scope) {
                return Err(Error::ScopeMissing(scope));
            }
            if principal.narrowing().is_some() && !may_be_narrowed(rpc) {
                return Err(Error::OutOfScope);
            }
        }
        Ok(Some(principal))
    }

    /// Has the signing keys fetched again, for a request that names an unknown one.
    pub(super) async fn refresh_keys(&self) {
        if let Some(authenticator) = &self.authenticator {
            authenticator.refresh_keys().await;
        }
    }
}

/// Whether the keys have to be fetched again before the request is refused for this.
pub(super) fn names_unknown_key(error: &Error) -> bool {
    *error == Error::Unauthenticated(Refusal::UnknownKey)
}

/// The scope for the RPC of the call service with this name; `None` if there is no such RPC.
fn scope_of(rpc: &str) -> Option<Scope> {
    Some(match rpc {
        "GetVoiceCall"
        | "BatchGetVoiceCalls"
        | "ListVoiceCalls"
        | "GetVoiceCallStats"
        | "ListVoiceCallChanges"
        | "WatchVoiceCalls"
        | "ExportVoiceCalls" => Scope::Read,
        "CreateVoiceCall"
        | "BatchCreateVoiceCalls"
        | "UpdateVoiceCall"
        | "HandleVoiceCall"
        | "DeleteVoiceCall"
        | "UndeleteVoiceCall"
        | "ImportVoiceCalls" => Scope::Write,
        "PurgeVoiceCall" => Scope::Purge,
        _ => return None,
    })
}

/// Whether a caller who is narrowed to some calls may use the RPC. An import chooses the uids of its
/// calls, and a purge tells whether there was one.
fn may_be_narrowed(rpc: &str) -> bool {
    !matches!(rpc, "ImportVoiceCalls" | "PurgeVoiceCall")
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::proto;

    #[test]
    fn every_rpc_has_its_scope() {
        let files = FileDescriptorSet::decode(proto::DESCRIPTORS).expect("they are valid");
        let services = files.file.iter().flat_map(|file| &file.service);
        let rpcs: Vec<_> = services.flat_map(|service| &service.method).collect();
        assert!(!rpcs.is_empty());
        for rpc in rpcs {
            assert!(scope_of(rpc.name()).is_some(), "{}", rpc.name());
        }
        assert_eq!(scope_of("NoSuchRpc"), None);
    }
}
