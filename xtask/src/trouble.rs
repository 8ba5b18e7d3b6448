//! Why a chore did not do what it was asked.

use std::process::ExitCode;

/// Why a chore did not do what it was asked. Only [`Trouble::Unavailable`] may become a skipped
/// step: it says that nothing was tried, so nothing is known to be wrong with the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The command line makes no sense.
    Usage(String),
    /// Something was tried and went wrong.
    Failed(String),
    /// This machine lacks what it takes: why, and what a person can do about it.
    Unavailable { reason: String, fix: String },
}

impl Trouble {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    pub(crate) fn unavailable(reason: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), fix: fix.into() }
    }

    /// For `map_err`: names the object of an I/O error, which the error itself does not.
    pub(crate) fn io(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::Failed(format!("{what}: {error}"))
    }

    /// Tells a person, and gives the exit status that belongs to it.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Self::Usage(message) => {
                eprintln!("xtask: {message}");
                ExitCode::from(2)
            }
            Self::Failed(message) => {
                eprintln!("xtask: {message}");
                ExitCode::FAILURE
            }
            Self::Unavailable { reason, fix } => {
                frame("COULD NOT RUN", reason, fix);
                ExitCode::FAILURE
            }
        }
    }
}

/// Says what did not run so loudly that nobody takes it for a pass.
pub(crate) fn frame(title: &str, reason: &str, fix: &str) {
    let rule = "!".repeat(78);
    println!("\n{rule}\n!! {title}");
    print_hanging("why", reason);
    print_hanging("fix", fix);
    println!("{rule}\n");
}

fn print_hanging(label: &str, text: &str) {
    for (number, line) in text.lines().enumerate() {
        let label = if number == 0 { format!("{label}:") } else { String::new() };
        println!("!!   {label:4} {line}");
    }
}
