//! What a call is, what can be done to it, and what follows: pure values and
//! functions, without I/O or a clock, and independent of gRPC and SQL.
//!
//! - [`call`]: the [`Call`] and the words of its enums; [`field`] names its parts
//! - [`text`], [`time`]: values that cannot be bad once they exist
//! - [`command`]: what a client asks to be done; [`machine`]: what it makes of a call,
//!   `(state, command) -> change | error`
//! - [`change`]: one entry of the change log; [`pending`]: one that is not committed yet
//! - [`filter`]: which calls are meant, as a predicate
//! - [`narrowing`]: which calls a caller may see and change, where these are not all
//! - [`view`]: what a change means to the calls that a filter matches and a caller may see
//! - [`list`]: how a list is ordered and where a page of it begins
//! - [`stats`]: how calls are grouped and counted
//!
//! Every other layer builds on this one; it knows none of them.

pub mod call;
pub mod change;
pub mod command;
pub mod field;
pub mod filter;
pub mod list;
pub mod machine;
pub mod narrowing;
pub mod pending;
pub mod stats;
pub mod text;
pub mod time;
pub mod view;

pub use call::{Attributes, Call, Direction, Seconds, Status};
pub use change::{Change, ChangeKind};
pub use command::{Command, ConflictPolicy, Draft, Edit, Patch, Record};
pub use field::{Field, FieldSet};
pub use filter::Filter;
pub use narrowing::{Narrowing, StaffNarrowing};
pub use pending::{PendingCall, PendingChange};
pub use text::{Identifier, PhoneNumber, Summary, Url};
pub use time::{PendingTime, Timestamp};
pub use uuid::Uuid;
pub use view::View;

/// A position in the change log: changes are numbered 1, 2, 3 and so on without
/// a gap, in commit order. 0 is before the first change.
pub type Revision = i64;
