//! What every object of the manager has: handles.

pub(crate) mod handle;
