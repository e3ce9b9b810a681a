//! How credentials are to be checked: what the operator has named, and what keeps it current.

use std::path::PathBuf;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Authenticator,
    jwt::{
        self, Jwt, KeySet,
        source::{Fetching, Keys},
    },
    policy::Policy,
};
use crate::reload::Files;

/// What the operator has named.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Tokens of an identity provider.
    pub jwt: Option<JwtSettings>,
    /// The policy file.
    pub policy: Option<PathBuf>,
    /// Whether client certificates are accepted.
    pub accepts_certificates: bool,
}

/// Tokens of an identity provider.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    /// Where its keys are: a file, or a URL that begins with `https://`.
    pub keys: String,
    /// What the tokens must contain.
    pub claims: jwt::Settings,
}

/// What keeps the rules current: each is a task that runs until it is stopped.
#[derive(Default)]
pub struct Sources {
    policy: Option<Files<Policy>>,
    key_file: Option<Files<KeySet>>,
    key_url: Option<Fetching>,
}

/// A task, with what it is for.
pub type Task = (&'static str, BoxFuture<'static, ()>);

impl Settings {
    /// Whether anything can prove who a caller is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jwt.is_none() && self.policy.is_none() && !self.accepts_certificates
    }

    /// Reads the files for the first time. Keys of a URL are fetched by the source's task.
    ///
    /// # Errors
    /// They cannot be used; a message for the operator.
    pub fn load(&self) -> Result<(Authenticator, Sources), String> {
        let mut sources = Sources::default();
        let jwt = match &self.jwt {
            Some(settings) => Some(settings.load(&mut sources)?),
            None => None,
        };
        let policy = match &self.policy {
            Some(path) => {
                let parse = |contents: &[Vec<u8>], before: Option<&Policy>| {
                    Policy::parse(&contents.concat(), before)
                };
                let (files, current) = Files::load("the policy file", vec![path.clone()], parse)?;
                sources.policy = Some(files);
                Some(current)
            }
            None => None,
        };
        let authenticator = Authenticator::new(jwt, policy, self.accepts_certificates);
        Ok((authenticator, sources))
    }
}

impl JwtSettings {
    fn load(&self, sources: &mut Sources) -> Result<Jwt, String> {
        let keys = if self.keys.contains("://") {
            let (keys, fetching) = Keys::of_url(&self.keys).map_err(|error| error.to_string())?;
            sources.key_url = Some(fetching);
            keys
        } else {
            let parse = |contents: &[Vec<u8>], _: Option<&KeySet>| {
                KeySet::parse(&contents.concat()).map_err(|error| error.to_string())
            };
            let (files, current) =
                Files::load("the key set", vec![PathBuf::from(&self.keys)], parse)?;
            sources.key_file = Some(files);
            Keys::of_file(current)
        };
        Ok(Jwt::new(self.claims.clone(), keys))
    }
}

impl Sources {
    /// Their tasks. Files are also read again when `signal` changes.
    #[must_use]
    pub fn tasks(self, signal: &watch::Receiver<u64>, stop: &CancellationToken) -> Vec<Task> {
        let mut tasks: Vec<Task> = Vec::new();
        if let Some(files) = self.policy {
            let follow = files.follow(signal.clone(), stop.clone());
            tasks.push(("following the policy file", Box::pin(follow)));
        }
        if let Some(files) = self.key_file {
            let follow = files.follow(signal.clone(), stop.clone());
            tasks.push(("following the key set", Box::pin(follow)));
        }
        if let Some(fetching) = self.key_url {
            let fetch = fetching.run(stop.clone());
            tasks.push(("fetching the key set", Box::pin(fetch)));
        }
        tasks
    }
}
