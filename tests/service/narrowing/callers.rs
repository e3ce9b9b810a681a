//! The callers: one for each narrowing, and one who sees everything. The rule of what each of
//! them sees is written anew here, so that the service is not compared with itself.

use std::time::{Duration, SystemTime};

use tonic::Request;
use voicecall::{
    auth::{Scope, policy},
    proto::VoiceCall,
};

use crate::support::with_token;

/// Members of staff and clients alike, so that a field that is taken for another is found.
pub(super) const NAMES: [&str; 5] = ["a", "A", "ü", "a b", "%_\\'"];

/// Which calls a caller sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Narrowing {
    pub(super) staff_uid: Option<&'static str>,
    pub(super) unassigned: bool,
    pub(super) client_uid: Option<&'static str>,
}

impl Narrowing {
    pub(super) fn is_narrowed(&self) -> bool {
        *self != Self::default()
    }

    pub(super) fn covers(&self, call: &VoiceCall) -> bool {
        let nobody = call.staff_uid.is_none()
            && call.handled_by_staff_uid.is_none()
            && call.handled_at.is_none();
        let staff = match self.staff_uid {
            None => true,
            Some(_) if nobody => self.unassigned,
            name => [
                call.staff_uid.as_deref(),
                call.handled_by_staff_uid.as_deref(),
            ]
            .contains(&name),
        };
        let client = match self.client_uid {
            None => true,
            name => call.client_uid.as_deref() == name,
        };
        staff && client
    }
}

/// A principal of the policy file, with all scopes.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) narrowing: Narrowing,
    /// Its name in the change log.
    pub(super) actor: String,
    pub(super) token: String,
}

impl Caller {
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        with_token(message, &self.token)
    }

    /// The caller, and its entry in the policy file.
    fn new(number: usize, narrowing: Narrowing) -> (Self, String) {
        let name = format!("caller-{number}");
        let scopes = Scope::ALL.into_iter().collect();
        let expires_at = SystemTime::now() + Duration::from_secs(24 * 3600);
        let (token, mut entry) =
            policy::new_token(&name, scopes, None, expires_at).expect("a good name");
        let uids = [
            ("staff_uid", narrowing.staff_uid),
            ("client_uid", narrowing.client_uid),
        ];
        for (key, uid) in uids {
            if let Some(uid) = uid {
                // A string of JSON is one of TOML.
                entry += &format!("{key} = {}\n", serde_json::Value::from(uid));
            }
        }
        if narrowing.unassigned {
            entry += "unassigned = true\n";
        }
        let caller = Self {
            narrowing,
            actor: format!("policy:{name}"),
            token,
        };
        (caller, entry)
    }
}

/// All callers, and their policy file. The first sees everything.
pub(super) fn callers() -> (Vec<Caller>, String) {
    let someone = || std::iter::once(None).chain(NAMES.map(Some));
    let staff = someone().flat_map(|name| match name {
        None => vec![(None, false)],
        name => vec![(name, false), (name, true)],
    });
    let narrowings = staff.flat_map(|(staff_uid, unassigned)| {
        someone().map(move |client_uid| Narrowing {
            staff_uid,
            unassigned,
            client_uid,
        })
    });
    let all = narrowings.enumerate();
    all.map(|(number, narrowing)| Caller::new(number, narrowing))
        .unzip()
}
