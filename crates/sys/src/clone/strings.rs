//! Strings for a program, in the form that exec takes.
//!
//! All of them are in one piece of memory: an environment has dozens, and every birth may need its own.

use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// Strings for a program, in the form that exec takes.
#[derive(Default)]
pub struct CStringArray {
    /// The strings, each with its NUL.
    text: Vec<u8>,
    /// One pointer into the text per string, and null. Empty if there are no strings.
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers are to the text, which belongs to the same value and is never changed.
unsafe impl Send for CStringArray {}
// SAFETY: as above.
unsafe impl Sync for CStringArray {}

impl CStringArray {
    /// The array of `strings`.
    #[must_use]
    pub fn new(strings: Vec<CString>) -> Self {
        strings.into_iter().collect()
    }

    /// The strings.
    pub fn strings(&self) -> impl Iterator<Item = &CStr> {
        // SAFETY: all but the last point to a string in the text.
        self.pointers().iter().map(|&string| unsafe { CStr::from_ptr(string) })
    }

    /// One pointer per string.
    pub(super) fn pointers(&self) -> &[*const c_char] {
        self.pointers.split_last().map_or(&[], |(_, strings)| strings)
    }

    /// What exec takes; an empty array too ends in null.
    pub(super) fn as_ptr(&self) -> *const *const c_char {
        if self.pointers.is_empty() { NO_STRINGS.as_ptr().cast() } else { self.pointers.as_ptr() }
    }
}

/// Of an empty array, its end.
static NO_STRINGS: AtomicPtr<c_char> = AtomicPtr::new(std::ptr::null_mut());

/// The environment of this process: what it is when the kernel gets to read it.
pub(super) fn host_environment() -> *const *const c_char {
    unsafe extern "C" {
        static environ: AtomicPtr<*const c_char>;
    }
    // SAFETY: the C library's variable is a pointer; that others change it meanwhile is what atomics are for.
    let strings = unsafe { &environ }.load(Relaxed);
    // After clearenv(3) there is none.
    if strings.is_null() { NO_STRINGS.as_ptr().cast() } else { strings }
}

impl From<Vec<CString>> for CStringArray {
    fn from(strings: Vec<CString>) -> Self {
        Self::new(strings)
    }
}

impl FromIterator<CString> for CStringArray {
    fn from_iter<T: IntoIterator<Item = CString>>(strings: T) -> Self {
        let mut builder = CStringArrayBuilder::default();
        for string in strings {
            builder.append(&[string.to_bytes()]);
        }
        builder.finish()
    }
}

impl Clone for CStringArray {
    fn clone(&self) -> Self {
        let mut builder = CStringArrayBuilder::with_capacity(self.pointers.len(), self.text.len());
        for string in self.strings() {
            builder.append(&[string.to_bytes()]);
        }
        builder.finish()
    }
}

impl fmt::Debug for CStringArray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.strings()).finish()
    }
}

/// The same, copied under `std`'s lock: its own functions change nothing meanwhile.
pub(super) fn copy_of_environment() -> CStringArray {
    let mut strings = CStringArrayBuilder::default();
    for (name, value) in std::env::vars_os() {
        strings.append(&[name.as_bytes(), b"=", value.as_bytes()]);
    }
    strings.finish()
}

/// An array that is being made.
#[derive(Debug, Default)]
pub struct CStringArrayBuilder {
    text: Vec<u8>,
    /// Where in the text each string begins.
    starts: Vec<usize>,
}

/// A string that C cannot have: it has a NUL byte in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NulInside;

impl CStringArrayBuilder {
    /// Room for so many strings with so many bytes in all; it grows when that is not enough.
    #[must_use]
    pub fn with_capacity(strings: usize, bytes: usize) -> Self {
        Self { text: Vec::with_capacity(bytes), starts: Vec::with_capacity(strings + 1) }
    }

    /// Appends a string that is given in pieces.
    ///
    /// # Errors
    /// There is a NUL byte in it; nothing is appended.
    pub fn push(&mut self, pieces: &[&[u8]]) -> Result<(), NulInside> {
        if pieces.iter().any(|piece| piece.contains(&0)) {
            return Err(NulInside);
        }
        self.append(pieces);
        Ok(())
    }

    /// The pieces have no NUL in them.
    fn append(&mut self, pieces: &[&[u8]]) {
        self.starts.push(self.text.len());
        for piece in pieces {
            self.text.extend_from_slice(piece);
        }
        self.text.push(0);
    }

    /// The array.
    #[must_use]
    pub fn finish(self) -> CStringArray {
        let Self { text, starts } = self;
        let string = |start| text.as_ptr().wrapping_add(start).cast::<c_char>();
        let mut pointers: Vec<_> = starts.into_iter().map(string).collect();
        if !pointers.is_empty() {
            pointers.push(std::ptr::null());
        }
        CStringArray { text, pointers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_in_order_from_every_road_in() {
        let mut builder = CStringArrayBuilder::default();
        assert_eq!(builder.push(&[b"A", b"=", b"1"]), Ok(()));
        assert_eq!(builder.push(&[b"B=", b"\0"]), Err(NulInside));
        assert_eq!(builder.push(&[]), Ok(()));
        let built = builder.finish();
        let given = CStringArray::new(vec![c"A=1".into(), c"".into()]);
        for array in [&built, &built.clone(), &given] {
            assert_eq!(array.strings().collect::<Vec<_>>(), [c"A=1", c""]);
            // SAFETY: exec relies on the same: the array ends in null.
            assert!(unsafe { *array.as_ptr().add(2) }.is_null());
        }
    }

    #[test]
    fn no_strings_are_an_array_too() {
        let array = CStringArray::default();
        assert_eq!(array.strings().count(), 0);
        // SAFETY: exec relies on the same: the array ends in null.
        assert!(unsafe { *array.as_ptr() }.is_null());
    }
}
