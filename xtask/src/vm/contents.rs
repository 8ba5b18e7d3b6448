//! What is in a guest: busybox, and either the tests with all that they start and read, or one
//! program. What is ours is at the same path as on this machine, so that a path which was compiled
//! into a test holds there too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Options;
use super::guest::{self, Run};
use super::initramfs::Initramfs;
use crate::cargo::{self, Executable, Workspace};
use crate::trouble::Trouble;

/// The packages whose tests say something about a kernel. One that is not there is passed over.
const PACKAGES: [&str; 7] = [
    "jobobject-sys",
    "jobobject-linux",
    "jobobject-engine",
    "jobobject",
    "jobobject-cli",
    "jobobject-testkit",
    "jobobject-conformance",
];

/// The folders that tests read when they run.
const DATA: [&str; 2] = ["conformance", "crates"];

const FOLDERS: [(&str, u32); 11] = [
    ("/dev", 0o755),
    ("/proc", 0o755),
    ("/sys", 0o755),
    ("/run", 0o755),
    ("/root", 0o700),
    ("/tmp", 0o1777),
    ("/var/tmp", 0o1777),
    ("/etc", 0o755),
    ("/sbin", 0o755),
    ("/usr/bin", 0o755),
    ("/usr/sbin", 0o755),
];

const TEXTS: [(&str, &str); 3] = [
    (
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n",
    ),
    ("/etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost guest\n::1 localhost\n"),
];

/// A guest to be: its files, and what it runs.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub root: Initramfs,
    pub runs: Vec<Run>,
    environment: Vec<(String, String)>,
}

/// The guest that `options` ask for.
pub(crate) fn contents(
    workspace: &Workspace,
    options: &Options,
    busybox: &Path,
    folder: &Path,
) -> Result<Contents, Trouble> {
    let mut contents = Contents::default();
    contents.add_base(busybox)?;
    match options.program.split_first() {
        Some((program, arguments)) => contents.add_program(program, arguments)?,
        None => {
            contents.add_data(&workspace.root)?;
            contents.add_tests(build(workspace, &options.packages, folder)?, &options.filters)?;
        }
    }
    contents.root.text("/init", 0o755, guest::init(&contents.runs, &contents.environment));
    Ok(contents)
}

impl Contents {
    fn add_base(&mut self, busybox: &Path) -> Result<(), Trouble> {
        FOLDERS.iter().for_each(|(path, mode)| self.root.folder(path, *mode));
        TEXTS.iter().for_each(|(path, text)| self.root.text(path, 0o644, *text));
        let listed = Command::new(busybox).arg("--list-full").output();
        let listed = listed.map_err(Trouble::io(busybox.display()))?.stdout;
        for applet in String::from_utf8_lossy(&listed).lines() {
            self.root.link(Path::new("/").join(applet), "/bin/busybox");
        }
        self.root.program("/bin/busybox", busybox);
        Ok(())
    }

    /// A file of this machine, if the word is a path; else a command that the guest has.
    fn add_program(&mut self, program: &str, arguments: &[String]) -> Result<(), Trouble> {
        let mut command = program.to_owned();
        if program.contains('/') {
            let file = fs::canonicalize(program).map_err(Trouble::io(program))?;
            if !cargo::is_static(&file) {
                let why = "is no static executable, and a guest has no shared libraries";
                return Err(Trouble::failed(format!("{program} {why}")));
            }
            command = text(&file)?;
            self.root.program(&file, &file);
        }
        let label = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
        self.runs.push(Run {
            label: label.replace(char::is_whitespace, "_"),
            dir: "/".to_owned(),
            words: [command].into_iter().chain(arguments.iter().cloned()).collect(),
        });
        Ok(())
    }

    fn add_data(&mut self, root: &Path) -> Result<(), Trouble> {
        let folders = DATA.iter().map(|data| root.join(data)).filter(|folder| folder.is_dir());
        for folder in folders {
            self.root.tree(&folder).map_err(Trouble::io(folder.display()))?;
        }
        Ok(())
    }

    fn add_tests(&mut self, built: Vec<Executable>, filters: &[String]) -> Result<(), Trouble> {
        self.environment.push(("RUST_BACKTRACE".to_owned(), "1".to_owned()));
        for executable in built {
            self.root.program(&executable.path, &executable.path);
            if executable.test {
                self.runs.push(test_run(&executable, filters)?);
            } else {
                self.add_command(&executable)?;
            }
        }
        // The order in which they were compiled is not the same twice.
        self.runs.sort_by(|one, other| one.label.cmp(&other.label));
        Ok(())
    }

    /// Makes an executable known by all the names that a test may look for.
    fn add_command(&mut self, executable: &Executable) -> Result<(), Trouble> {
        let name = &executable.name;
        let path = PathBuf::from("/bin").join(name);
        // A shell has no variables with a dash; such a name is still known at compile time.
        if !name.contains('-') {
            self.environment.push((format!("CARGO_BIN_EXE_{name}"), text(&executable.path)?));
        }
        if name == "job" {
            self.environment.push(("JOB_BIN".to_owned(), text(&path)?));
        }
        self.root.link(path, &executable.path);
        Ok(())
    }
}

fn test_run(test: &Executable, filters: &[String]) -> Result<Run, Trouble> {
    let target = if test.kind == "test" { &test.name } else { &test.kind };
    // One at a time: a test that hangs is then the one named last, and where two processors emulate
    // two more there is nothing left for a second.
    let words = [text(&test.path)?, "--test-threads=1".to_owned()];
    Ok(Run {
        label: format!("{}/{target}", test.package),
        dir: text(&test.dir)?,
        words: words.into_iter().chain(filters.iter().cloned()).collect(),
    })
}

/// Builds the tests of the packages asked for, or of all that matter, and their executables. The
/// latter take a build of their own: one of tests makes only those that a package's own integration
/// tests need.
fn build(
    workspace: &Workspace,
    asked: &[String],
    folder: &Path,
) -> Result<Vec<Executable>, Trouble> {
    let wanted = |name: &&str| match asked {
        [] => PACKAGES.contains(name),
        _ => asked.iter().any(|asked| asked == name),
    };
    let names = workspace.packages.iter().map(|package| package.name.as_str());
    let packages = names.filter(wanted).collect::<Vec<_>>();
    if packages.is_empty() {
        return Err(Trouble::failed("none of these packages is in the workspace"));
    }
    let commands = compile(workspace, &["build", "--bins"], &packages, folder)?;
    let tests = compile(workspace, &["test", "--no-run", "--tests"], &packages, folder)?;
    let commands = commands.into_iter().filter(|executable| executable.kind == "bin");
    Ok(commands.chain(tests.into_iter().filter(|executable| executable.test)).collect())
}

/// Optimised a little, for a slow processor, and without what only a debugger reads, for a file
/// system that is memory; but with the assertions of a debug build.
fn compile(
    workspace: &Workspace,
    verb: &[&str],
    packages: &[&str],
    folder: &Path,
) -> Result<Vec<Executable>, Trouble> {
    let mut cargo = workspace.cargo(verb);
    cargo.args(["--all-features", "--quiet"]);
    cargo.args(packages.iter().flat_map(|name| ["--package", name]));
    cargo.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "0");
    cargo.env("CARGO_PROFILE_DEV_STRIP", "debuginfo");
    workspace.build_static(cargo, folder)
}

fn text(path: &Path) -> Result<String, Trouble> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Trouble::failed(format!("not UTF-8: {}", path.display())))
}
