//! A PostgreSQL that has a certificate, and certificates for its clients.

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use tokio::sync::OnceCell;
use voicecall::store::{Connector, OpenError, check_migrations};

use super::postgres::{Cluster, Durability};

/// The access rules: a client certificate for one database, a password for one user, and TLS for
/// all.
pub(crate) const HBA: &str = "\
local all all trust
hostssl template1 all 127.0.0.1/32 trust clientcert=verify-ca
hostssl all bound 127.0.0.1/32 scram-sha-256
hostssl all all 127.0.0.1/32 trust
";

/// A database server that has a certificate.
pub(crate) struct Secured {
    pub(crate) cluster: Cluster,
    pub(crate) port: u16,
}

impl Secured {
    /// The server that these tests share.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Secured> = OnceCell::const_new();
        SHARED
            .get_or_init(|| async { Self::start(HBA, "server") })
            .await
    }

    /// A server with the certificate of this name.
    pub(crate) fn start(hba: &str, certificate: &str) -> Self {
        let port = free_port();
        let cluster = Cluster::start_with(Durability::Fast, port, |dir| {
            make_certificates(dir);
            std::fs::write(dir.join("hba"), hba).expect("it is ours");
            let path = |name: &str| dir.join(name).display().to_string();
            vec![
                "listen_addresses=127.0.0.1".into(),
                "ssl=on".into(),
                format!("ssl_cert_file={}", path(&format!("{certificate}.pem"))),
                format!("ssl_key_file={}", path(&format!("{certificate}.key"))),
                format!("ssl_ca_file={}", path("ca.pem")),
                format!("hba_file={}", path("hba")),
            ]
        });
        Self { cluster, port }
    }

    /// A connection string, with file names in `{}` made paths.
    pub(crate) fn url(&self, host: &str, tls: &str) -> String {
        let tls = tls
            .replace('{', &format!("'{}/", self.cluster.dir().display()))
            .replace('}', "'");
        format!(
            "{host} port={} user=voicecall dbname=postgres {tls}",
            self.port
        )
    }

    /// Whether the service gets a connection, and if not, why.
    pub(crate) async fn try_connect(&self, host: &str, tls: &str) -> Result<(), String> {
        try_connect(&self.url(host, tls)).await
    }
}

/// The same by any connection string.
pub(crate) async fn try_connect(url: &str) -> Result<(), String> {
    let connector = Connector::new(url).expect("a valid URL");
    match check_migrations(&connector).await {
        Ok(()) | Err(OpenError::NotMigrated(_)) => Ok(()),
        Err(OpenError::Connect(reason)) => Err(reason),
        Err(other) => panic!("{other}"),
    }
}

/// A free port of this machine.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("bound").port()
}

/// Two certificate authorities, and the certificates that they signed. `alone` is self-signed.
pub(crate) fn make_certificates(dir: &Path) {
    let certificate = |name: &str, issuer: Option<&str>, extension: &str| {
        let mut command = Command::new("openssl");
        command.args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes".split(' '));
        command.args(["-subj", &format!("/CN={name}"), "-addext", extension]);
        let (key, pem) = (format!("{name}.key"), format!("{name}.pem"));
        command.args(["-keyout", &key, "-out", &pem]);
        if let Some(issuer) = issuer {
            let (key, pem) = (format!("{issuer}.key"), format!("{issuer}.pem"));
            command.args(["-CA", &pem, "-CAkey", &key]);
            command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        }
        command.current_dir(dir).stderr(Stdio::null());
        assert!(command.status().expect("openssl is installed").success());
    };
    let names = "subjectAltName=DNS:db.example";
    certificate("ca", None, "keyUsage=keyCertSign");
    certificate("strange", None, "keyUsage=keyCertSign");
    certificate("alone", None, names);
    certificate("server", Some("ca"), names);
    certificate("client", Some("ca"), names);
    certificate("impostor", Some("strange"), names);
}
