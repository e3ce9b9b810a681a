pub(super) mod budget;
pub(super) mod calls;
