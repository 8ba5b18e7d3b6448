//! The workspace as cargo sees it, and cargo as a chore calls it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::trouble::Trouble;

/// The workspace: where it is, where it builds, and its packages.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub root: PathBuf,
    pub target: PathBuf,
    pub packages: Vec<Package>,
}

#[derive(Debug)]
pub(crate) struct Package {
    pub name: String,
    pub manifest: PathBuf,
}

/// An executable that a build made.
#[derive(Debug)]
pub(crate) struct Executable {
    pub package: String,
    /// The folder of its package: where `cargo test` runs a test.
    pub dir: PathBuf,
    /// What it was made of: `lib`, `bin`, `test`, ...
    pub kind: String,
    /// The target's name.
    pub name: String,
    /// Whether it is a test binary.
    pub test: bool,
    pub path: PathBuf,
}

impl Workspace {
    pub(crate) fn load() -> Result<Self, Trouble> {
        let mut command = cargo_in(Path::new(env!("CARGO_MANIFEST_DIR")));
        let metadata = json(command.args(["metadata", "--no-deps", "--format-version=1"]))?;
        let metadata =
            metadata.first().ok_or_else(|| Trouble::failed("cargo metadata printed nothing"))?;
        Ok(Self {
            root: text(metadata, "/workspace_root")?.into(),
            target: text(metadata, "/target_directory")?.into(),
            packages: list(metadata, "/packages")
                .iter()
                .map(Package::read)
                .collect::<Result<_, _>>()?,
        })
    }

    /// A cargo that runs in the root and reads nothing from us.
    pub(crate) fn cargo<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = cargo_in(&self.root);
        command.args(args);
        command
    }

    /// Runs a cargo that builds statically linked executables, and returns those of our packages.
    ///
    /// glibc's own target can do it, so that no second toolchain is needed. `--target` is said even
    /// though it is this machine's: without it build scripts and procedural macros would be linked
    /// statically too, and the latter cannot be.
    pub(crate) fn build_static(
        &self,
        mut cargo: Command,
        target_dir: &Path,
    ) -> Result<Vec<Executable>, Trouble> {
        cargo
            .args([
                "--message-format=json-render-diagnostics",
                "--target",
                &host_triple(),
                "--target-dir",
            ])
            .arg(target_dir)
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        let messages = json(&mut cargo)?;
        let built =
            messages.iter().filter_map(|message| self.executable(message)).collect::<Vec<_>>();
        match built.iter().find(|executable| !is_static(&executable.path)) {
            Some(stray) => {
                Err(Trouble::failed(format!("{} is not statically linked", stray.path.display())))
            }
            None => Ok(built),
        }
    }

    /// Runs a cargo that builds executables, and returns those of our packages.
    pub(crate) fn build(&self, mut cargo: Command) -> Result<Vec<Executable>, Trouble> {
        let messages = json(cargo.arg("--message-format=json-render-diagnostics"))?;
        Ok(messages.iter().filter_map(|message| self.executable(message)).collect())
    }

    fn executable(&self, message: &Value) -> Option<Executable> {
        let path = message.pointer("/executable")?.as_str()?.into();
        let manifest = Path::new(message.pointer("/manifest_path")?.as_str()?);
        Some(Executable {
            package: self
                .packages
                .iter()
                .find(|package| package.manifest == manifest)?
                .name
                .clone(),
            dir: manifest.parent()?.to_owned(),
            kind: text(message, "/target/kind/0").ok()?,
            name: text(message, "/target/name").ok()?,
            test: message.pointer("/profile/test")?.as_bool()?,
            path,
        })
    }
}

impl Package {
    fn read(metadata: &Value) -> Result<Self, Trouble> {
        Ok(Self {
            name: text(metadata, "/name")?,
            manifest: text(metadata, "/manifest_path")?.into(),
        })
    }
}

fn cargo_in(dir: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(dir).stdin(Stdio::null());
    command
}

/// Runs a command that prints one JSON value a line. Its messages for people go where ours go.
fn json(command: &mut Command) -> Result<Vec<Value>, Trouble> {
    let shown = show(command);
    let output = command.stderr(Stdio::inherit()).output().map_err(Trouble::io(&shown))?;
    if !output.status.success() {
        return Err(Trouble::failed(format!("{shown}: {}", output.status)));
    }
    // A line that is no JSON was printed by a build tool, not by cargo.
    let lines = String::from_utf8_lossy(&output.stdout);
    Ok(lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn text(value: &Value, pointer: &str) -> Result<String, Trouble> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found
        .map(str::to_owned)
        .ok_or_else(|| Trouble::failed(format!("cargo's answer has no {pointer}")))
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The command as one would type it.
pub(crate) fn show(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// The target of this machine, with glibc.
pub(crate) fn host_triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Whether a file is a 64-bit little-endian ELF executable that asks for no dynamic loader.
pub(crate) fn is_static(path: &Path) -> bool {
    fs::read(path).is_ok_and(|file| names_no_interpreter(&file) == Some(true))
}

/// `None` for what is no such ELF file. Source: elf(5), `Elf64_Ehdr` and `Elf64_Phdr`.
fn names_no_interpreter(file: &[u8]) -> Option<bool> {
    const CLASS64_LITTLE_ENDIAN: &[u8] = b"\x7fELF\x02\x01";
    const PT_INTERP: &[u8] = &3u32.to_le_bytes();
    let half =
        |at: usize| Some(usize::from(u16::from_le_bytes(file.get(at..at + 2)?.try_into().ok()?)));
    file.starts_with(CLASS64_LITTLE_ENDIAN).then_some(())?;
    let offset = usize::try_from(u64::from_le_bytes(file.get(32..40)?.try_into().ok()?)).ok()?;
    let (entry_size, entries) = (half(54)?, half(56)?);
    let interpreter = |entry| {
        file.get(offset + entry * entry_size..).is_some_and(|header| header.starts_with(PT_INTERP))
    };
    Some(!(0..entries).any(interpreter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_binary_of_this_machine_is_dynamic_and_a_script_is_no_executable() {
        assert_eq!(
            names_no_interpreter(&fs::read("/proc/self/exe").unwrap()),
            Some(cfg!(target_feature = "crt-static"))
        );
        assert_eq!(names_no_interpreter(b"#!/bin/sh\n"), None);
        assert_eq!(names_no_interpreter(b"\x7fELF\x02\x01"), None);
    }
}
