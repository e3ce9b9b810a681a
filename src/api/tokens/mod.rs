//! Tokens that clients send back to continue: with the next page, or with a stream.

pub mod page_token;
pub mod resume_token;
