//! Tokens that clients hand back: where a page or a stream goes on.

pub mod page_token;
pub mod resume_token;
