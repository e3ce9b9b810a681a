//! TLS to the database, by a server that lets nobody in over the network without.

use std::process::Command;

use voicecall::store::{Connector, OpenError};

use crate::support::{
    Server, create, inbound,
    postgres::connect,
    secured::{HBA, Secured, free_port, try_connect},
    server::settings,
};

/// The name in the server's certificate, and another for the same address.
const RIGHT_NAME: &str = "host=db.example hostaddr=127.0.0.1";
const WRONG_NAME: &str = "host=other.example hostaddr=127.0.0.1";

#[tokio::test]
async fn every_connection_of_the_service_is_encrypted() {
    let secured = Secured::shared().await;
    let by_socket = secured.cluster.database().await;
    let (_, database) = by_socket.rsplit_once(' ').expect("dbname comes last");
    let url = secured.url(RIGHT_NAME, &format!("sslmode=require {database}"));
    assert_eq!(try_connect(&url).await, Ok(()));
    let server = Server::start_on(&url, settings()).await;
    create(&mut server.client(), inbound()).await;
    let query = "SELECT count(*), count(*) FILTER (WHERE NOT ssl) \
        FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
        WHERE datname = current_database() AND application_name LIKE 'voicecall%'";
    let client = connect(&by_socket).await;
    let row = client.query_one(query, &[]).await.expect("it answers");
    let (all, plain): (i64, i64) = (row.get(0), row.get(1));
    assert!(all > 0);
    assert_eq!(plain, 0);
    server.stop().await;
}

#[tokio::test]
async fn the_authorities_of_the_system_are_trusted_by_name() {
    let secured = Secured::shared().await;
    let authority = secured.cluster.dir().join("ca.pem");
    for (host, tls, accepted) in [
        (RIGHT_NAME, "sslmode=verify-full", true),
        (RIGHT_NAME, "sslrootcert=system", true),
        (WRONG_NAME, "sslrootcert=system", false),
    ] {
        // Which authorities the system has is settled for a whole process.
        let output = Command::new(env!("CARGO_BIN_EXE_voicecall"))
            .arg("migrate")
            .env("DATABASE_URL", secured.url(host, tls))
            .env("SSL_CERT_FILE", &authority)
            .output()
            .expect("the program is built");
        assert_eq!(output.status.success(), accepted, "{tls}: {output:?}");
    }
}

#[tokio::test]
async fn a_password_is_bound_to_the_connection() {
    let secured = Secured::shared().await;
    let client = connect(&secured.cluster.url("postgres")).await;
    let sql = "CREATE ROLE bound LOGIN SUPERUSER PASSWORD 'secret'";
    client.batch_execute(sql).await.expect("the name is new");
    let tls = "sslmode=require channel_binding=require user=bound password=secret";
    assert_eq!(secured.try_connect(RIGHT_NAME, tls).await, Ok(()));
}

#[tokio::test]
async fn a_server_is_accepted_as_far_as_sslmode_trusts_it() {
    let secured = Secured::shared().await;
    for (host, tls) in [
        (RIGHT_NAME, "sslmode=verify-full sslrootcert={ca.pem}"),
        (WRONG_NAME, "sslmode=verify-ca sslrootcert={ca.pem}"),
        (WRONG_NAME, "sslmode=require sslrootcert={ca.pem}"),
        (WRONG_NAME, "sslmode=require"),
        (WRONG_NAME, "sslmode=prefer"),
        (WRONG_NAME, "sslmode=allow"),
        (WRONG_NAME, ""),
        ("hostaddr=127.0.0.1", "sslmode=require"),
    ] {
        let result = secured.try_connect(host, tls).await;
        assert_eq!(result, Ok(()), "{host} {tls}");
    }
    let path = secured.cluster.dir().join("ca.pem").display().to_string();
    let url = format!(
        "postgres://voicecall@127.0.0.1:{}/postgres?sslmode=verify-ca&sslrootcert={}",
        secured.port,
        path.replace('/', "%2F")
    );
    assert_eq!(try_connect(&url).await, Ok(()));
}

#[tokio::test]
async fn a_server_is_refused_where_its_certificate_does_not_do() {
    let secured = Secured::shared().await;
    let wrong_name = "certificate not valid for name \"other.example\"";
    let unknown = "UnknownIssuer";
    for (host, tls, expected) in [
        (
            WRONG_NAME,
            "sslmode=verify-full sslrootcert={ca.pem}",
            wrong_name,
        ),
        (
            RIGHT_NAME,
            "sslmode=verify-full sslrootcert={strange.pem}",
            unknown,
        ),
        (
            RIGHT_NAME,
            "sslmode=verify-ca sslrootcert={strange.pem}",
            unknown,
        ),
        (
            RIGHT_NAME,
            "sslmode=require sslrootcert={strange.pem}",
            unknown,
        ),
        // Another certificate that the authority vouches for is not the server's.
        (
            RIGHT_NAME,
            "sslmode=verify-ca sslrootcert={impostor.pem}",
            unknown,
        ),
        (RIGHT_NAME, "sslmode=verify-full", unknown),
        (RIGHT_NAME, "sslrootcert=system", unknown),
    ] {
        let result = secured.try_connect(host, tls).await;
        let reason = result.expect_err(tls);
        assert!(reason.contains(expected), "{host} {tls}: {reason}");
        assert!(reason.contains(": no TLS connection: "), "{reason}");
    }
}

#[tokio::test]
async fn a_self_signed_server_may_be_its_own_authority() {
    let secured = Secured::start(HBA, "alone");
    let right = "sslmode=verify-full sslrootcert={alone.pem}";
    assert_eq!(secured.try_connect(RIGHT_NAME, right).await, Ok(()));
    for (host, tls) in [
        (WRONG_NAME, right),
        (RIGHT_NAME, "sslmode=verify-full sslrootcert={ca.pem}"),
    ] {
        let reason = secured.try_connect(host, tls).await.expect_err(tls);
        assert!(reason.contains(": no TLS connection: "), "{reason}");
    }
}

#[tokio::test]
async fn a_server_that_insists_on_tls_says_so() {
    let secured = Secured::shared().await;
    let result = secured.try_connect(RIGHT_NAME, "sslmode=disable").await;
    let reason = result.expect_err("the server insists");
    assert!(reason.contains("no pg_hba.conf entry"), "{reason}");
    assert!(reason.contains("no encryption"), "{reason}");
}

#[tokio::test]
async fn prefer_does_without_where_tls_is_refused() {
    let hba = "hostnossl all all 127.0.0.1/32 trust\n";
    let secured = Secured::start(hba, "server");
    for (tls, accepted) in [
        ("", true),
        ("sslmode=disable", true),
        ("sslmode=require", false),
    ] {
        let result = secured.try_connect(RIGHT_NAME, tls).await;
        assert_eq!(result.is_ok(), accepted, "{tls}: {result:?}");
    }
}

#[tokio::test]
async fn a_client_shows_its_certificate() {
    let secured = Secured::shared().await;
    let connect = async |tls| {
        let tls = format!("dbname=template1 sslmode=require {tls}");
        secured.try_connect(RIGHT_NAME, &tls).await
    };
    let known = "sslcert={client.pem} sslkey={client.key}";
    assert_eq!(connect(known).await, Ok(()));
    for (tls, expected) in [
        ("sslcert={impostor.pem} sslkey={impostor.key}", "UnknownCA"),
        ("", "requires a valid client certificate"),
    ] {
        let reason = connect(tls).await.expect_err(tls);
        assert!(reason.contains(expected), "{tls}: {reason}");
    }
}

#[tokio::test]
async fn sockets_do_without_tls() {
    let secured = Secured::shared().await;
    let host = format!("host={}", secured.cluster.dir().display());
    for tls in [
        "sslmode=require",
        "sslmode=verify-full sslrootcert={ca.pem}",
    ] {
        assert_eq!(secured.try_connect(&host, tls).await, Ok(()));
    }
}

#[tokio::test]
async fn a_dead_host_is_passed_over() {
    let secured = Secured::shared().await;
    let url = format!(
        "postgres://voicecall@127.0.0.1:{},127.0.0.1:{}/postgres\
         ?target_session_attrs=read-write&sslmode=require",
        free_port(),
        secured.port
    );
    assert_eq!(try_connect(&url).await, Ok(()));
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_without_repeating_the_url() {
    let secured = Secured::shared().await;
    for (tls, expected) in [
        ("sslmode=on", "sslmode must be disable, allow, prefer"),
        ("sslmode=verify-ca", "verify-ca needs sslrootcert"),
        ("sslrootcert={ca.pem}", "sslrootcert needs sslmode="),
        (
            "sslmode=require sslrootcert=system",
            "sslrootcert=system needs sslmode=verify-full",
        ),
        (
            "sslmode=verify-ca sslrootcert={none}",
            "the sslrootcert file cannot be read: No such file",
        ),
        (
            "sslmode=verify-ca sslrootcert={ca.key}",
            "the sslrootcert file contains no certificate in PEM format",
        ),
        (
            "sslmode=require sslcert={server.pem}",
            "sslcert needs sslkey",
        ),
        (
            "sslmode=require sslkey={server.key}",
            "sslkey needs sslcert",
        ),
        (
            "sslmode=require sslcert={server.pem} sslkey={ca.pem}",
            "the sslkey file contains no unencrypted key in PEM format",
        ),
        (
            "sslmode=require sslcert={server.pem} sslkey={ca.key}",
            "sslcert and sslkey cannot be used",
        ),
        (
            "sslnegotiation=direct",
            "sslnegotiation=direct needs sslmode=",
        ),
        ("sslmode=require host=/run", "sockets do not use TLS"),
    ] {
        let url = secured.url("host=db.example password=secret", tls);
        let error = Connector::new(&url).expect_err(tls);
        assert!(matches!(error, OpenError::BadUrl(_)), "{tls}: {error}");
        let text = error.to_string();
        assert!(text.contains(expected), "{tls}: {text}");
        let dir = secured.cluster.dir().display().to_string();
        for part in ["secret", "db.example", dir.as_str()] {
            assert!(!text.contains(part), "{text}");
        }
    }
}

#[tokio::test]
async fn a_connector_shows_no_password() {
    let connector = Connector::new("postgres://me:secret@db/calls?sslmode=require").expect("valid");
    assert_eq!(connector.describe(), "database calls at db");
    let shown = format!("{connector:?}");
    assert!(
        shown.contains("Require") && !shown.contains("secret"),
        "{shown}"
    );
}
