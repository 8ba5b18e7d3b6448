//! What a machine lacks, from Debian's archive: quietly when it works, in full when it does not.
//!
//! Installing needs root. Downloading a package and taking one file out of it does not, and changes
//! nothing on the machine; so only what must be installed is.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::cargo::show;
use crate::trouble::Trouble;

/// An archive that does not answer costs seconds, not apt's two minutes for every address; a
/// package manager that is busy is waited for.
const PATIENCE: [&str; 8] = [
    "-qq",
    "-o",
    "Acquire::http::Timeout=20",
    "-o",
    "Acquire::Retries=2",
    "-o",
    "DPkg::Lock::Timeout=300",
    "-oDpkg::Use-Pty=0",
];

/// Where a program is, if it is in the search path.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Finds a program, installing its package where it is missing and we may.
pub(crate) fn ensure_program(name: &str, package: &str) -> Result<PathBuf, Trouble> {
    if let Some(found) = program(name) {
        return Ok(found);
    }
    let fix =
        format!("sudo apt-get update && sudo apt-get install --no-install-recommends {package}");
    let missing =
        |why: String| Trouble::unavailable(format!("`{name}` is not installed, and {why}"), &fix);
    let root = Root::find().map_err(|why| missing(why.to_owned()))?;
    println!("installing {package} with apt-get ...");
    let install =
        || run(root.apt_get().args(["install", "--yes", "--no-install-recommends", package]));
    // A fresh machine has no lists at all, an old one has lists of what the archive no longer holds.
    install().or_else(|_| root.update().and_then(|_| install())).map_err(missing)?;
    program(name).ok_or_else(|| missing(format!("{package} did not bring it")))
}

/// Refreshes the package lists, if we may.
pub(crate) fn update() -> Result<(), String> {
    let root = Root::find().map_err(str::to_owned)?;
    println!("refreshing the package lists with apt-get ...");
    root.update().map(drop)
}

/// What a package depends on, by name. Empty when this machine's lists do not know it.
pub(crate) fn depends(package: &str) -> Vec<String> {
    let Ok(output) = run(plain("apt-cache").args(["depends", "--important", package])) else {
        return Vec::new();
    };
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines
        .lines()
        .filter_map(|line| Some(line.trim().strip_prefix("Depends: ")?.to_owned()))
        .collect()
}

/// Downloads a package and writes the one file in it that matches `pattern` to `file`: whole or
/// not at all, whoever else is doing the same.
pub(crate) fn extract(package: &str, pattern: &str, file: &Path) -> Result<(), String> {
    let scratch = PathBuf::from(format!("{}.{}.part", file.display(), std::process::id()));
    fs::create_dir_all(&scratch).map_err(about(&scratch))?;
    let new = scratch.join("file");
    let kept = download(package, &scratch)
        .and_then(|archive| unpack(&archive, pattern, &new))
        .and_then(|()| fs::rename(&new, file).map_err(about(file)));
    // What cannot be removed is in nobody's way.
    let _ = fs::remove_dir_all(&scratch);
    kept
}

fn download(package: &str, folder: &Path) -> Result<PathBuf, String> {
    println!("downloading {package} with apt-get ...");
    run(plain("apt-get").args(PATIENCE).args(["download", package]).current_dir(folder))?;
    let mut files =
        fs::read_dir(folder).map_err(about(folder))?.flatten().map(|entry| entry.path());
    let archive = files.find(|file| file.extension().is_some_and(|end| end == "deb"));
    archive.ok_or_else(|| format!("{package}: nothing came"))
}

fn unpack(archive: &Path, pattern: &str, file: &Path) -> Result<(), String> {
    let mut contents = plain("dpkg-deb");
    contents.arg("--fsys-tarfile").arg(archive).stdout(Stdio::piped());
    let mut contents = contents.spawn().map_err(about(archive))?;
    let pipe = contents.stdout.take().ok_or("no pipe from dpkg-deb")?;
    let mut tar = plain("tar");
    tar.args(["--extract", "--to-stdout", "--wildcards", pattern]).stdin(pipe);
    let taken = tar.stdout(executable(file).map_err(about(file))?).status();
    let whole = contents.wait().map_err(about(archive))?.success()
        && taken.map_err(about(archive))?.success();
    whole.then_some(()).ok_or_else(|| format!("{}: no `{pattern}` in it", archive.display()))
}

fn about(path: &Path) -> impl FnOnce(io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}

/// A new file that may be executed, as the programs that we take out of packages are.
fn executable(file: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o755).open(file)
}

/// A way to be root without asking anybody.
enum Root {
    Already,
    Sudo,
}

impl Root {
    fn find() -> Result<Self, &'static str> {
        if program("apt-get").is_none() {
            return Err("this machine has no apt-get to install it with");
        }
        if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
            return Ok(Self::Already);
        }
        let may = program("sudo").is_some()
            && run(plain("sudo").args(["--non-interactive", "true"])).is_ok();
        may.then_some(Self::Sudo).ok_or("installing it takes root or a sudo that asks no password")
    }

    fn apt_get(&self) -> Command {
        let mut command = match self {
            Self::Already => plain("env"),
            Self::Sudo => plain("sudo"),
        };
        if matches!(self, Self::Sudo) {
            command.args(["--non-interactive", "env"]);
        }
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]).args(PATIENCE);
        command
    }

    fn update(&self) -> Result<Output, String> {
        run(self.apt_get().arg("update"))
    }
}

/// A command without our terminal, and with messages in one language.
fn plain(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).env("LC_ALL", "C");
    command
}

/// Runs quietly; the error is all that the command said.
fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{}: {error}", show(command)))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{} failed:\n{}", show(command), String::from_utf8_lossy(&said).trim()))
}
