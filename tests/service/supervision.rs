//! A task without which there is no service ends the process, and clients go elsewhere.

use std::{
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
};

use tokio::net::TcpListener;
use tonic::Code;
use voicecall::server::Error;

use crate::support::{
    Server, assert_refused,
    postgres::Cluster,
    server::settings,
    watcher::{Watcher, from, live},
};

#[tokio::test]
async fn a_server_whose_socket_accepts_no_more_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("it is free");
    let socket = listener.as_fd().try_clone_to_owned().expect("it is open");
    let database_url = Cluster::shared().await.database().await;
    let (server, ready) = Server::launch_on(listener, &database_url, settings());
    ready.await.expect("it starts");
    let mut watcher = Watcher::start(&mut server.client(), from(live()))
        .await
        .expect("it starts");
    // Not a stream, but shut down like one.
    let shut_down = TcpStream::from(socket).shutdown(Shutdown::Both);
    shut_down.expect("it listens");
    let ended: Result<(), _> = Err(watcher.end().await);
    assert_refused(ended, Code::Unavailable, "DRAINING", &[]);
    let ended = server.running.await.expect("no panic");
    let error = ended.expect_err("it was not told to stop");
    assert!(matches!(error, Error::TaskEnded(_)));
    assert_eq!(
        error.to_string(),
        "the task for accepting connections has ended"
    );
}
