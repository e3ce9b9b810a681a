pub(super) mod head;
pub(super) mod log;
pub(super) mod notification;
