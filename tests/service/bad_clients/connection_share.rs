//! One connection with as many requests as the whole server takes on.

use tonic::Code;

use crate::support::{
    Server, assert_refused, create, eventually, get, inbound, postgres::connect, reference,
    retry_after, server::settings,
};

/// Holds every commit.
const HOLD_COMMITS: &str = "SELECT pg_advisory_lock(8642101, 1)";
const RELEASE_COMMITS: &str = "SELECT pg_advisory_unlock(8642101, 1)";

#[tokio::test]
async fn a_connection_has_a_quarter_of_the_requests_and_the_others_have_the_rest() {
    let mut few = settings();
    few.api.max_concurrent_requests = 8;
    let server = Server::start_with(few).await;
    let blocker = connect(&server.database_url).await;
    blocker.batch_execute(HOLD_COMMITS).await.expect("held");
    let greedy = server.client();
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let mut client = greedy.clone();
            tokio::spawn(async move { create(&mut client, inbound()).await })
        })
        .collect();
    eventually("it has its share", async || {
        let result = get(&mut greedy.clone(), &reference().uid).await;
        let status = result.expect_err("there is none");
        if status.code() == Code::NotFound {
            return false;
        }
        assert!(retry_after(&status).is_some());
        let result: Result<(), _> = Err(status);
        assert_refused(result, Code::ResourceExhausted, "OVERLOADED", &[]);
        true
    })
    .await;
    let mut other = server.client();
    for _ in 0..10 {
        let status = get(&mut other, &reference().uid).await;
        let status = status.expect_err("there is none");
        assert_eq!(status.code(), Code::NotFound, "it is served");
    }
    blocker.batch_execute(RELEASE_COMMITS).await.expect("free");
    for write in waiting {
        write.await.expect("it is created");
    }
    let status = get(&mut greedy.clone(), &reference().uid).await;
    assert_eq!(status.expect_err("none").code(), Code::NotFound);
}
