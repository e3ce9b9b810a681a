//! What the commands of `voicecall auth` do.

use std::{
    error::Error,
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::SystemTime,
};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::time::{Duration, timeout};

use crate::{
    auth::{
        Certificate, Credentials, Principal,
        jwt::{
            NarrowingClaims,
            issue::{Claims, SigningKey},
        },
        policy,
    },
    config::{
        Auth, LogFormat,
        auth::{Check, Issue, NewKey, NewToken},
    },
    domain::Narrowing,
    server,
};

/// How long the key set of a URL may take.
const KEYS_TIMEOUT: Duration = Duration::from_secs(15);
const OWNER_ONLY: u32 = 0o600;
const EVERYBODY: u32 = 0o644;
const MAX_TOKEN_BYTES: u64 = 64 * 1024;

/// `voicecall auth`. An error is a message for the operator: why it cannot be done, or why the
/// credentials are refused.
pub(super) fn auth(command: &Auth) -> Result<(), Box<dyn Error>> {
    match command {
        Auth::NewToken(settings) => new_token(settings),
        Auth::Check(settings) => super::runtime()?.block_on(check(settings)),
        Auth::NewKey(settings) => new_key(settings),
        Auth::Issue(settings) => issue(settings),
    }
}

fn new_token(settings: &NewToken) -> Result<(), Box<dyn Error>> {
    let scopes = settings.scopes.iter().copied().collect();
    let expires_at = SystemTime::now() + settings.expires;
    let narrowing = settings.narrowing.narrowing();
    let (token, entry) = policy::new_token(&settings.name, scopes, narrowing.as_ref(), expires_at)?;
    let mut out = io::stdout().lock();
    match &settings.token_file {
        Some(path) => write_secret(path, &format!("{token}\n"))?,
        // So that what is appended to a policy file never has the token in it.
        None => eprintln!("the token, which is shown only now: {token}"),
    }
    write!(out, "{entry}")?;
    Ok(())
}

async fn check(settings: &Check) -> Result<(), Box<dyn Error>> {
    super::start_log(LogFormat::Human, "warn")?;
    let certificate = match (&settings.certificate, &settings.tls_client_ca) {
        (Some(certificate), Some(authorities)) => {
            let certificate = read(certificate)?;
            server::verify_client_certificate(&read(authorities)?, &certificate)?;
            Some(read_certificate(&certificate)?)
        }
        _ => None,
    };
    let mut credentials = settings.credentials.settings();
    credentials.accepts_certificates = certificate.is_some();
    if credentials.is_empty() {
        return Err("there is nothing to check against: pass --auth-policy or --auth-jwks".into());
    }
    let (authenticator, sources) = credentials.load()?;
    let header = match &settings.token_file {
        Some(path) => Some(format!("Bearer {}", read_token(path)?)),
        None => None,
    };
    let fetched = async {
        authenticator.ready().await;
    };
    let stop = tokio_util::sync::CancellationToken::new();
    let signal = tokio::sync::watch::channel(0).1;
    let tasks = sources.tasks(&signal, &stop);
    let tasks = futures_util::future::join_all(tasks.into_iter().map(|(_, task)| task));
    tokio::select! {
        fetched = timeout(KEYS_TIMEOUT, fetched) => {
            fetched.map_err(|_| "the keys of the identity provider cannot be fetched")?;
        }
        _ = async { tasks.await; std::future::pending::<()>().await } => {}
    }
    let found = authenticator.authenticate(Credentials {
        authorization: [header.as_deref().map(str::as_bytes), None],
        certificate: certificate.as_ref(),
    });
    let principal = found.map_err(|refusal| format!("refused: {refusal}"))?;
    print(&principal)?;
    Ok(())
}

fn print(principal: &Principal) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "principal: {}", principal.name())?;
    writeln!(out, "scopes:    {}", principal.scopes())?;
    let narrowing = principal.narrowing().map(|narrowing| narrowing.as_ref());
    writeln!(out, "calls:     {}", which_calls(narrowing))?;
    match principal.limits() {
        limits if limits.is_empty() => writeln!(out, "limits:    those of all principals")?,
        limits => writeln!(
            out,
            "limits:    {limits}; otherwise those of all principals"
        )?,
    }
    let expires_at = principal.expires_at().map(jiff::Timestamp::try_from);
    match expires_at {
        Some(Ok(at)) => writeln!(out, "expires:   {at:.0}"),
        _ => writeln!(out, "expires:   never"),
    }
}

/// Which calls a principal may see and change, in words.
fn which_calls(narrowing: Option<&Narrowing>) -> String {
    let Some(narrowing) = narrowing else {
        return "all".to_owned();
    };
    let mut words = "only those".to_owned();
    if let Some(client_uid) = narrowing.client_uid() {
        words += &format!(" of client_uid {}", client_uid.as_str());
    }
    if let Some(staff) = narrowing.staff() {
        let staff_uid = staff.staff_uid.as_str();
        words += &format!(" that staff_uid {staff_uid} answered or handled");
        if staff.unassigned {
            words += ", or that nobody has yet";
        }
    }
    words
}

fn new_key(settings: &NewKey) -> Result<(), Box<dyn Error>> {
    let key = SigningKey::generate()?;
    write_secret(&settings.key_file, &key.to_pem())?;
    match &settings.jwks_file {
        Some(path) => write_new(path, &key.key_set(), EVERYBODY)?,
        None => write!(io::stdout().lock(), "{}", key.key_set())?,
    }
    Ok(())
}

fn issue(settings: &Issue) -> Result<(), Box<dyn Error>> {
    let key = SigningKey::from_pem(&read(&settings.key_file)?)?;
    let narrowing = settings.narrowing.narrowing();
    let more = narrowing.map(|narrowing| NarrowingClaims::default().of(&narrowing));
    let token = key.issue(&Claims {
        subject: settings.sub.clone(),
        issuer: settings.issuer.clone(),
        audience: settings.audience.clone(),
        scopes: settings.scopes.iter().copied().collect(),
        lifetime: settings.expires,
        more: more.unwrap_or_default(),
    })?;
    writeln!(io::stdout().lock(), "{token}")?;
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

fn read_certificate(pem: &[u8]) -> Result<Certificate, String> {
    let der = CertificateDer::from_pem_slice(pem);
    let certificate = der.ok().and_then(|der| Certificate::parse(&der).ok());
    certificate.ok_or_else(|| "the certificate file cannot be parsed".to_owned())
}

fn read_token(path: &Path) -> Result<String, String> {
    let mut token = String::new();
    let read = match path.as_os_str() == "-" {
        true => io::stdin()
            .lock()
            .take(MAX_TOKEN_BYTES)
            .read_to_string(&mut token),
        false => fs::File::open(path)
            .and_then(|file| file.take(MAX_TOKEN_BYTES).read_to_string(&mut token)),
    };
    read.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(token.trim().to_owned())
}

/// Writes a new file that only its owner may read.
fn write_secret(path: &Path, text: &str) -> Result<(), String> {
    write_new(path, text, OWNER_ONLY)
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(mode);
    let written = options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| format!("cannot write {}: {error}", path.display()))
}
