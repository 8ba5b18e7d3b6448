//! Access rights of a handle to a job, and what the generic rights stand for.
//!
//! Source: *Job Object Security and Access Rights*; the values of `winnt.h`.

use bitflags::bitflags;

bitflags! {
    /// What a handle to a job permits. The rights live in the handle: they were checked when it was
    /// opened.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Access: u32 {
        /// Put processes into the job.
        #[doc(alias = "JOB_OBJECT_ASSIGN_PROCESS")]
        const ASSIGN_PROCESS = 0x0001;
        /// Set limits.
        #[doc(alias = "JOB_OBJECT_SET_ATTRIBUTES")]
        const SET_ATTRIBUTES = 0x0002;
        /// Ask for limits, accounting, members.
        #[doc(alias = "JOB_OBJECT_QUERY")]
        const QUERY = 0x0004;
        /// Terminate, stop, signal.
        #[doc(alias = "JOB_OBJECT_TERMINATE")]
        const TERMINATE = 0x0008;
        /// Unused since Windows Vista.
        #[doc(alias = "JOB_OBJECT_SET_SECURITY_ATTRIBUTES")]
        const SET_SECURITY_ATTRIBUTES = 0x0010;
        /// Containers of Windows 10; means nothing here.
        #[doc(alias = "JOB_OBJECT_IMPERSONATE")]
        const IMPERSONATE = 0x0020;
        /// Delete the object.
        const DELETE = 0x0001_0000;
        /// Read the security descriptor.
        const READ_CONTROL = 0x0002_0000;
        /// Change the access list.
        const WRITE_DAC = 0x0004_0000;
        /// Change the owner.
        const WRITE_OWNER = 0x0008_0000;
        /// Wait for the job.
        const SYNCHRONIZE = 0x0010_0000;
    }
}

/// "Everything that is allowed": stands for [`Access::ALL`] until [`Access::map_generic`].
pub const GENERIC_ALL: u32 = 0x1000_0000;
/// Stands for `READ_CONTROL | QUERY`.
pub const GENERIC_READ: u32 = 0x8000_0000;
/// Stands for `READ_CONTROL | ASSIGN_PROCESS | SET_ATTRIBUTES | TERMINATE`.
pub const GENERIC_WRITE: u32 = 0x4000_0000;
/// Stands for `READ_CONTROL | SYNCHRONIZE`.
pub const GENERIC_EXECUTE: u32 = 0x2000_0000;

impl Access {
    /// Every right: what the creator's handle carries.
    #[doc(alias = "JOB_OBJECT_ALL_ACCESS")]
    pub const ALL: Self = Self::from_bits_retain(0x001F_003F);

    /// Replaces the generic bits of a Win32 access mask by what they stand for. Unknown bits are
    /// dropped.
    #[must_use]
    pub fn map_generic(mask: u32) -> Self {
        let mut access = Self::from_bits_truncate(mask);
        if mask & GENERIC_READ != 0 {
            access |= Self::READ_CONTROL | Self::QUERY;
        }
        if mask & GENERIC_WRITE != 0 {
            access |= Self::READ_CONTROL | Self::ASSIGN_PROCESS;
            access |= Self::SET_ATTRIBUTES | Self::TERMINATE;
        }
        if mask & GENERIC_EXECUTE != 0 {
            access |= Self::READ_CONTROL | Self::SYNCHRONIZE;
        }
        if mask & GENERIC_ALL != 0 {
            access |= Self::ALL;
        }
        access
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generic_rights_map_as_on_windows() {
        assert_eq!(Access::map_generic(GENERIC_READ).bits(), 0x0002_0004);
        assert_eq!(Access::map_generic(GENERIC_WRITE).bits(), 0x0002_000B);
        assert_eq!(Access::map_generic(GENERIC_EXECUTE).bits(), 0x0012_0000);
        assert_eq!(Access::map_generic(GENERIC_ALL).bits(), 0x001F_003F);
        assert_eq!(Access::map_generic(0x0100_0001), Access::ASSIGN_PROCESS);
    }
}
